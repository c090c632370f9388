"""Counts that patterns allow: whole blocks, whole channels, n of every m."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from sparsemend.allocation.budget import round_to_budget


class Units(Protocol):
    """What of a layer's pattern counts depend on."""

    @property
    def coupled(self) -> tuple[str, ...]:
        """Layers that keep the same units, empty for a layer by itself."""

    @property
    def least(self) -> int:
        """The smallest count above 0."""

    def around(self, count: int) -> tuple[int, int]:
        """The counts next to this one that a mask can have."""


def hold_to_patterns(
    counts: Sequence[int], sizes: Sequence[int], structures: Sequence[Units], keep: int
) -> tuple[int, ...]:
    """Counts that the layers' patterns allow, near those given, for a budget.

    Every count becomes the next one below or above that its pattern allows, at least one unit, so
    that the total is as near to the budget as that can be; of two as near the larger. Where there
    is a choice, it is by largest remainder, ties to the earlier layer. Counts that are allowed stay
    as they are. Coupled layers keep the same number of units: together they are as one layer whose
    units are theirs.

    Parameters
    ----------
    counts
        Kept count of each layer.
    sizes
        Number of weights of each layer.
    structures
        The pattern of each layer; empty where any weights can be kept.
    keep
        Total number of weights to keep.

    Raises
    ------
    SparsemendError
        If the least counts that the patterns allow exceed the budget.

    Examples
    --------
    >>> from sparsemend.patterns import MatrixShape, parse_pattern
    >>> shapes = [MatrixShape(1, 4, 10, 1), MatrixShape(1, 6, 7, 1)]
    >>> channels = [parse_pattern("channel").on(shape) for shape in shapes]
    >>> hold_to_patterns([22, 19], [40, 42], channels, 41)
    (20, 21)
    """
    if not structures:
        return tuple(counts)
    groups = _groups(structures)
    if len(groups) < len(structures):
        return _hold_together(groups, counts, sizes, structures, keep)
    least = [structure.least for structure in structures]
    if any(count < one for count, one in zip(counts, least, strict=True)):
        densities = [Fraction(count, size) for count, size in zip(counts, sizes, strict=True)]
        counts = round_to_budget(densities, sizes, keep, least)
    around = [s.around(count) for s, count in zip(structures, counts, strict=True)]
    low = [low for low, _ in around]
    gaps = [high - low for low, high in around]
    remainders = [
        Fraction(count - start, gap) if gap else Fraction(0)
        for count, start, gap in zip(counts, low, gaps, strict=True)
    ]
    # The layers that should get more come last, and so are the first to be asked below.
    order = sorted((i for i, gap in enumerate(gaps) if gap), key=lambda i: (remainders[i], -i))
    wanted = keep - sum(low)
    # Bit s of the k-th number: whether some of the first k layers make up s more weights.
    sums = [1]
    for i in order:
        sums.append(sums[-1] | sums[-1] << gaps[i])
    more = _nearest_bit(sums[-1], wanted)
    raised = set()
    for k in reversed(range(len(order))):
        gap = gaps[order[k]]
        if gap <= more and sums[k] >> (more - gap) & 1:
            raised.add(order[k])
            more -= gap
    return tuple(low[i] + gaps[i] * (i in raised) for i in range(len(low)))


def _groups(structures: Sequence[Units]) -> list[list[int]]:
    """Positions of layers that keep the same units, and of every other layer alone."""
    groups: dict[object, list[int]] = {}
    for position, structure in enumerate(structures):
        groups.setdefault(structure.coupled or position, []).append(position)
    return list(groups.values())


@dataclass(frozen=True)
class _Together:
    """The pattern of coupled layers as of one.

    Attributes
    ----------
    least
        Weights of a unit, which is one of each layer.
    """

    least: int
    coupled: tuple[str, ...] = ()

    def around(self, count: int) -> tuple[int, int]:
        low = count // self.least * self.least
        return low, low + (self.least if low < count else 0)


def _hold_together(
    groups: Sequence[Sequence[int]],
    counts: Sequence[int],
    sizes: Sequence[int],
    structures: Sequence[Units],
    keep: int,
) -> tuple[int, ...]:
    units = [[structures[i].least for i in group] for group in groups]
    joined = [
        structures[group[0]] if len(group) == 1 else _Together(sum(unit))
        for group, unit in zip(groups, units, strict=True)
    ]
    totals, whole = (
        [sum(values[i] for i in group) for group in groups] for values in (counts, sizes)
    )
    held = hold_to_patterns(totals, whole, joined, keep)
    found = list(counts)
    for group, unit, total in zip(groups, units, held, strict=True):
        for i, weights in zip(group, unit, strict=True):
            found[i] = total if len(group) == 1 else total // sum(unit) * weights
    return tuple(found)


def _nearest_bit(bits: int, place: int) -> int:
    """The place of the bit that is set nearest to a place; of two as near the higher."""
    if place <= 0:
        return 0
    below = (bits & ((1 << place + 1) - 1)).bit_length() - 1
    above = bits >> place
    if not above:
        return below
    high = place + (above & -above).bit_length() - 1
    return high if high - place <= place - below else below
