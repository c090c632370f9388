"""Curves as marks, what stands beside them, and the size of their panels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from sparsemend.reports.drawing.figure import Area, Dot, Group, Label, Line, Mark, spread_out
from sparsemend.reports.drawing.scale import Linear
from sparsemend.reports.drawing.text import percent, shorten
from sparsemend.reports.series import Curve, Point, Priced

# Pixels of a panel, and beside it for the labels at its right edge.
WIDTH, RIGHT = 320.0, 100.0
# Height of a panel of accuracies, and of a line of text.
HEIGHT, _LINE = 200.0, 15.0


# Radius of a dot.
RADIUS = 3.2


def curve_marks(rule: str, curve: Curve, colour: str, shape: str, what: str) -> Iterator[Mark]:
    """A curve with its band over seeds and a dot with a tip at every sparsity."""
    dots = [
        Dot(
            p.sparsity,
            p.mean,
            colour,
            shape,
            RADIUS if len(curve) < 24 else 2.4,
            tip=f"sparsity {percent(p.sparsity, 4)}: {what} {spread_text(p)}",
        )
        for p in curve
    ]
    yield from banded_marks(rule, dots, [p.std for p in curve])


def banded_marks(rule: str, dots: Sequence[Dot], deviations: Sequence[float]) -> Iterator[Mark]:
    """Dots of one colour, a line through them, and where they deviate a band around it."""
    x, colour = tuple(dot.x for dot in dots), dots[0].colour
    if any(std > 0 for std in deviations):
        both = list(zip(dots, deviations, strict=True))
        low, high = (tuple(dot.y + sign * std for dot, std in both) for sign in (-1, 1))
        yield Area(x, low, high, colour)
    yield Line(tuple((dot.x, dot.y) for dot in dots), colour)
    yield Group(rule, tuple(dots))


def level_marks(levels: Mapping[str, float], ends: tuple[float, float]) -> Iterator[Mark]:
    """A dashed line from end to end at every level, with its name and value beside it."""
    for name, level in levels.items():
        yield Line(((ends[0], level), (ends[1], level)), "axis", 1.2, "5 3")
        yield Label(ends[1], level, f"{name} {percent(level)}", "mute", dx=8)


def names_beside(
    averages: Mapping[str, float],
    colours: Mapping[str, str],
    end: float,
    y: Linear,
    levels: Iterable[float],
) -> Iterator[Label]:
    """The rules' names at the end of x, best average on top, clear of each other and of levels.

    Levels are the ends of what names may take.
    """
    levels = sorted(levels)
    line = _LINE / HEIGHT * (y.high - y.low)
    low = levels[0] + line if levels else y.low
    high = levels[-1] - line if len(levels) > 1 else y.high
    places = spread_out(list(averages.values()), line, low, high)
    for rule, place in zip(averages, places, strict=True):
        yield Label(end, place, shorten(rule, 14), colours[rule], dx=8, bold=True)


def spread_text(point: Point | Priced) -> str:
    """Mean ± standard deviation in percent, and the number of seeds where there are several."""
    if point.count == 1:
        return percent(point.mean)
    return f"{percent(point.mean)} ± {percent(point.std, 2)} over {point.count} seeds"
