"""Where values are drawn: scales from data to [0, 1] and back, with ticks for people."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from sparsemend.reports.drawing.text import NBSP, number, percent, shorten

# In the order in which they get a label where there is room.
_ROUND_SPARSITIES = (
    *(0.0, 0.5, 0.9, 0.8, 0.95, 0.98, 0.99, 0.995, 0.999),
    *(0.7, 0.97, 0.85, 0.92, 0.94, 0.96, 0.6, 0.88, 0.2),
)


# From where on large numbers are labelled in a unit, its size and its sign.
_UNITS = ((1e9, 1e9, f"{NBSP}G"), (1e6, 1e6, f"{NBSP}M"), (1e4, 1e3, f"{NBSP}k"))


@dataclass(frozen=True)
class Tick:
    """A value of an axis and its label."""

    value: float
    label: str


class Scale(Protocol):
    """A monotone map between data and the fraction of the axis, 0 at its start and 1 at its end."""

    def position(self, value: float) -> float:
        """Fraction of the axis at a value; beyond [0, 1] for values beyond the ends."""

    def value(self, position: float) -> float:
        """Inverse of :meth:`position`."""

    def ticks(self) -> tuple[Tick, ...]:
        """Values to label, from start to end."""


@dataclass(frozen=True)
class Linear:
    """Equal steps; labels as percentages where ``as_percent``."""

    low: float
    high: float
    as_percent: bool = False
    count: int = 5

    def position(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    def value(self, position: float) -> float:
        return self.low + position * (self.high - self.low)

    def ticks(self) -> tuple[Tick, ...]:
        values = nice_ticks(self.low, self.high, self.count)
        if self.as_percent:
            return tuple(Tick(v, percent(v)) for v in values)
        known = ((unit, sign) for start, unit, sign in _UNITS if self.high >= start)
        unit, sign = next(known, (1.0, ""))
        return tuple(Tick(v, f"{number(v / unit)}{sign if v else ''}") for v in values)


@dataclass(frozen=True)
class Logarithmic:
    """Equal ratios: ticks at 1, 2 and 5 of every decade, labelled in percent unless ``plain``.

    Only powers of ten are labelled where ``sparse``.
    """

    low: float
    high: float
    sparse: bool = False
    plain: bool = False

    def position(self, value: float) -> float:
        return math.log(value / self.low) / math.log(self.high / self.low)

    def value(self, position: float) -> float:
        return self.low * math.pow(self.high / self.low, position)

    def ticks(self) -> tuple[Tick, ...]:
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        digits = (1,) if self.sparse else (1, 2, 5)
        values = [float(f"{digit}e{decade}") for decade in decades for digit in digits]
        slack = 1e-9
        return tuple(
            Tick(v, number(v) if self.plain else percent(v))
            for v in values
            if self.low * (1 - slack) <= v <= self.high * (1 + slack)
        )


@dataclass(frozen=True)
class Remaining:
    """Sparsities, with equal steps for equal ratios of the weights that remain.

    Removing half of what is left is the same step everywhere, so that the steep end of a sweep
    is not squeezed into a corner.
    """

    low: float
    high: float

    def position(self, value: float) -> float:
        return math.log((1 - value) / (1 - self.low)) / math.log((1 - self.high) / (1 - self.low))

    def value(self, position: float) -> float:
        return 1 - (1 - self.low) * math.pow((1 - self.high) / (1 - self.low), position)

    def ticks(self) -> tuple[Tick, ...]:
        found: list[float] = []
        for value in (*_ROUND_SPARSITIES, *nice_ticks(self.low, self.high, 4)):
            clear = all(abs(self.position(value) - self.position(v)) > 0.125 for v in found)
            if self.low <= value <= self.high and clear:
                found.append(value)
        return tuple(Tick(v, percent(v, 4)) for v in sorted(found))


@dataclass(frozen=True)
class Root:
    """From 0, with steps in proportion to square roots: small values stay apart."""

    high: float

    def position(self, value: float) -> float:
        return math.copysign(math.sqrt(abs(value) / self.high), value)

    def value(self, position: float) -> float:
        return math.copysign(position**2 * self.high, position)

    def ticks(self) -> tuple[Tick, ...]:
        found = [0.0]
        for value in (1.0, self.high, 0.2 * self.high, 0.05 * self.high):
            if value <= self.high and all(
                abs(self.position(value) - self.position(v)) > 0.2 for v in found
            ):
                found.append(value)
        return tuple(Tick(v, number(v, 2)) for v in sorted(found))


@dataclass(frozen=True)
class Categories:
    """One equal step per name; the value of a name is its index, ± 0.5 its edges."""

    names: tuple[str, ...]
    longest: int = 28

    def position(self, value: float) -> float:
        return (value + 0.5) / len(self.names)

    def value(self, position: float) -> float:
        return position * len(self.names) - 0.5

    def ticks(self) -> tuple[Tick, ...]:
        return tuple(Tick(i, shorten(n, self.longest)) for i, n in enumerate(self.names))


@dataclass(frozen=True)
class Columns:
    """Like :class:`Categories` for an ascending grid of fractions; labels a few round ones."""

    values: tuple[float, ...]

    def position(self, value: float) -> float:
        return (value + 0.5) / len(self.values)

    def value(self, position: float) -> float:
        return position * len(self.values) - 0.5

    def ticks(self) -> tuple[Tick, ...]:
        found: dict[int, Tick] = {}
        for wanted in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0):
            index = min(range(len(self.values)), key=lambda i: abs(self.values[i] - wanted))
            if math.isclose(self.values[index], wanted, rel_tol=0.2):
                found.setdefault(index, Tick(index, percent(self.values[index], 2)))
        return tuple(found[index] for index in sorted(found))


def nice_step(span: float, count: int) -> float:
    """The 1, 2 or 5 times a power of ten that cuts ``span`` into about ``count`` steps."""
    rough = span / max(count, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    return next((f * power for f in (1, 2, 5) if f * power >= rough * 0.999), 10 * power)


def nice_ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """Round values from ``low`` to ``high``, both included where they are round."""
    if not high > low:
        return (low,)
    step = nice_step(high - low, count)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    # Division by the inverse keeps 0.3 from becoming 0.30000000000000004.
    return tuple(float(f"{i * step:.12g}") for i in range(first, last + 1))


def nice_end(value: float, count: int = 5) -> float:
    """The round value at or above ``value`` (above 0) that ends an axis from 0."""
    step = nice_step(value, count)
    return float(f"{math.ceil(value / step - 1e-9) * step:.12g}")


def end_above(values: Iterable[float], least: float) -> float:
    """The round end of an axis from 0 over all finite values, at least ``least`` (above 0)."""
    return nice_end(max((least, *(value for value in values if math.isfinite(value)))))


def fraction_scale(highest: float) -> Linear:
    """An axis in percent from 0 to a round end; it ends at 100 % where that is enough."""
    end = nice_end(max(highest, 0.01))
    return Linear(0, 1.0 if highest <= 1 < end else end, as_percent=True)


def sparsity_scale(values: Sequence[float]) -> Remaining:
    """An axis over the sparsities of a sweep, a little wider than they are."""
    most, least = 1 - min(values), 1 - max(values)
    margin = max((most / least) ** 0.03, 1.002)
    return Remaining(max(1 - most * margin, 0.0), 1 - least / margin)
