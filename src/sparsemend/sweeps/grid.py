"""The grid of a sweep: which cells there are, in the order in which they share work."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from numbers import Real

from torch import Tensor

from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError
from sparsemend.patterns import FREE, Pattern
from sparsemend.recipe.defaults import REPAIR, SEED, plain_rule
from sparsemend.sweeps.records import Cell
from sparsemend.targets import Target

_MOST = 10_000  # values of one range


@dataclass(frozen=True)
class Grid:
    """Every combination of the values is a cell, for every network.

    Attributes
    ----------
    rules, masks, repairs
        As in :func:`sparsemend.compress`; a mask of None is the repair's default.
    sparsities
        Fractions in [0, 1); empty where there are targets.
    seeds
        Of the calibration inputs.
    targets
        What networks may cost, in the place of sparsities.
    """

    rules: tuple[str, ...]
    masks: tuple[str | None, ...]
    repairs: tuple[str, ...]
    sparsities: tuple[float, ...]
    seeds: tuple[int, ...]
    targets: tuple[Target, ...] = ()

    def __post_init__(self) -> None:
        for name in ("rules", "masks", "repairs", "sparsities", "seeds"):
            if not getattr(self, name) and not (name == "sparsities" and self.targets):
                raise SparsemendError(f"the sweep has no {name}", allowed="at least one")

    def cells(self, network: str) -> list[Cell]:
        """The cells of one network, seed by seed; masks are None where they are not chosen.

        Cells of one seed share calibration, those of one mask and repair the diagnosis.
        """
        budgets: list[tuple[float | None, str]] = [(sparsity, "") for sparsity in self.sparsities]
        budgets += [(None, target.written) for target in self.targets]
        return [
            Cell(network, rule, mask or "", repair, sparsity, seed, target)
            for seed in self.seeds
            for mask in self.masks
            for repair in self.repairs
            for rule in self.rules
            for sparsity, target in budgets
        ]


def make_grid(
    sparsities: str | float | Iterable[str | float] | None,
    rules: str | Iterable[str] | None = None,
    masks: str | Iterable[str] | None = None,
    repairs: str | Iterable[str] = (REPAIR,),
    seeds: int | Iterable[int] = (SEED,),
    pattern: Pattern = FREE,
    targets: Sequence[Target] = (),
) -> Grid:
    """A grid from single values or several; repeated values count once.

    Without sparsities and targets, the sparsity of the pattern; without rules the one that fits it.

    Raises
    ------
    SparsemendError
        If there is nothing to vary over, or a value is none.
    """
    if sparsities is None and not targets:
        own = pattern.sparsity(None)
        if own is None:
            raise SparsemendError("the sweep has no sparsities", allowed="at least one, or targets")
        sparsities = own
    return Grid(
        rules=_several(plain_rule(pattern) if rules is None else rules),
        masks=(None,) if masks is None else _several(masks),
        repairs=_several(repairs),
        sparsities=() if sparsities is None else read_sparsities(sparsities),
        seeds=read_seeds(seeds),
        targets=tuple(targets),
    )


def read_seeds(values: int | Iterable[int]) -> tuple[int, ...]:
    """One seed or several, each once, in the order given.

    Raises
    ------
    SparsemendError
        For what is no whole number from 0.
    """
    given = list(values) if isinstance(values, Iterable) else [values]
    return tuple(dict.fromkeys(check_int("seed", seed, minimum=0) for seed in given))


def read_sparsities(values: str | float | Iterable[str | float]) -> tuple[float, ...]:
    """Sparsities from numbers and ranges, ascending and distinct.

    Parameters
    ----------
    values
        Fractions, or texts such as ``"0.9"`` and ``"0.80:0.98:0.01"`` (start, end and step, in
        exact decimals; both ends are included).

    Raises
    ------
    SparsemendError
        For what is neither, a range that its step does not divide, or one out of [0, 1).

    Examples
    --------
    >>> read_sparsities("0.7:0.9:0.1")
    (0.7, 0.8, 0.9)
    """
    found = {number for value in _listed(values) for number in _range(value)}
    return tuple(sorted(found))


def _listed(values: str | float | Iterable[str | float]) -> Sequence[str | float]:
    """One or several values; of a tensor as plain numbers."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        return [values]
    return values.tolist() if isinstance(values, Tensor) else list(values)


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _range(value: str | float) -> Iterable[float]:
    if not isinstance(value, str):
        if not _is_number(value):
            raise SparsemendError("sparsity is no number", value, "a fraction in [0, 1), or a text")
        return (float(value),)
    try:
        numbers = [Decimal(part.strip()) for part in value.split(":")]
    except InvalidOperation:
        numbers = []
    if len(numbers) not in (1, 3) or not all(number.is_finite() for number in numbers):
        raise SparsemendError(
            "sparsity is neither a number nor a range", value, "0.9, or start:end:step as in "
            "0.80:0.98:0.01"
        )  # fmt: skip
    if len(numbers) == 1:
        return (float(numbers[0]),)
    start, end, step = numbers
    ordered = 0 <= start <= end < 1 and step > 0
    # The number of steps, checked before a list is made of them.
    count = (end - start) / step if ordered else Decimal(0)
    if not ordered or count > _MOST or count != int(count):
        raise SparsemendError(
            "this range of sparsities cannot be",
            value,
            "start:end:step with 0 <= start <= end < 1 and a step that divides end - start",
        )
    return [float(start + step * i) for i in range(int(count) + 1)]


def _several(values: str | Iterable[str]) -> tuple[str, ...]:
    """One text is one value, not its letters."""
    given: Sequence[str] = [values] if isinstance(values, str) else list(values)
    return tuple(dict.fromkeys(given))
