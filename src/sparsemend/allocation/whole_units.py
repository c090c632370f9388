"""Counts that patterns allow: whole blocks, whole channels, n of every m."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from sparsemend.allocation.budget import round_to_budget
from sparsemend.patterns import Structure


def hold_to_patterns(
    counts: Sequence[int], sizes: Sequence[int], structures: Sequence[Structure], keep: int
) -> tuple[int, ...]:
    """Counts that the layers' patterns allow, near those given, for a budget.

    Every count becomes the next one below or above that its pattern allows, at least one unit, so
    that the total is as near to the budget as that can be; of two as near the larger. Where there
    is a choice, it is by largest remainder, ties to the earlier layer. Counts that are allowed stay
    as they are.

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
