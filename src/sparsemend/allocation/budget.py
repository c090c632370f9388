"""From a sparsity to exact integer counts per layer.

All arithmetic is on integers and exact fractions, so that nothing depends on the order
of summation, and equal inputs tie exactly (ties go to the earlier layer).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from numbers import Real

from sparsemend.errors import SparsemendError


def round_half_up(value: Fraction) -> int:
    """Nearest integer to a non-negative fraction; halves go up (away from zero)."""
    return math.floor(value + Fraction(1, 2))


def kept_total(sparsity: float, total: int) -> int:
    """Number of weights to keep, round((1 − S) · N).

    The sparsity is read as the decimal that it prints as, so 0.9 means nine tenths and not
    the nearest binary fraction; halves are rounded up, towards keeping a weight more.

    Parameters
    ----------
    sparsity
        Global sparsity S, a fraction in [0, 1).
    total
        Number of prunable weights N.

    Raises
    ------
    SparsemendError
        If the sparsity is no number in [0, 1).

    Examples
    --------
    >>> kept_total(0.9, 15), kept_total(0.95, 100)
    (2, 5)
    """
    number: object = sparsity
    is_number = isinstance(number, Real) and not isinstance(number, bool)
    if not is_number or not 0 <= sparsity < 1:  # NaN fails the comparison too
        raise SparsemendError(
            "sparsity is out of range", sparsity, "a fraction in [0, 1)", "95 % is 0.95"
        )
    return round_half_up((1 - Fraction(str(sparsity))) * total)


def require_feasible(sizes: Sequence[int], keep: int, minimum: Sequence[int]) -> None:
    """Refuse a budget below the layers' minimum counts or above their sizes.

    Raises
    ------
    SparsemendError
        Naming the largest feasible sparsity.
    """
    total, least = sum(sizes), sum(minimum)
    if least <= keep <= total:
        return
    # Rounded down to six digits, so that the sparsity printed is itself feasible.
    largest = math.floor(Fraction(total - least, total) * 10**6) / 10**6
    raise SparsemendError(
        f"no allocation over {len(sizes)} layers keeps this number of weights",
        keep,
        f"{least} to {total} of {total} weights",
        f"the largest feasible sparsity is {largest:g}",
    )


def water_fill(
    prior: Sequence[Fraction | float], sizes: Sequence[int], keep: int
) -> tuple[Fraction, ...]:
    """Densities proportional to a prior, capped at 1, that use the budget exactly.

    density_l = min(1, f · prior_l) with the common factor f solved such that
    Σ density_l · n_l = keep, exactly. It is where "fix the largest density above 1 at 1 and
    rescale the rest" ends. Layers with prior 0 get nothing until all others are dense; they
    then share what is left at one density.

    Parameters
    ----------
    prior
        One finite non-negative number per layer, of any scale.
    sizes
        Number of weights of each layer.
    keep
        Total number of weights to keep, 0 to Σ n_l.

    Raises
    ------
    SparsemendError
        If a prior is negative or not finite, or the budget exceeds the weights.

    Examples
    --------
    >>> [str(density) for density in water_fill([4, 1], [10, 30], 20)]
    ['1', '1/3']
    """
    require_feasible(sizes, keep, [0] * len(sizes))
    amounts = _fill(_amounts(prior, sizes), [0] * len(sizes), sizes, keep)
    return tuple(amount / max(n, 1) for amount, n in zip(amounts, sizes, strict=True))


def round_to_budget(
    densities: Sequence[Fraction | float],
    sizes: Sequence[int],
    keep: int,
    minimum: int | Sequence[int] = 1,
) -> tuple[int, ...]:
    """Integer counts that follow the densities and add up to the budget exactly.

    Counts outside [minimum, n_l] are moved to the bound and the others rescaled by one
    factor; then every count is rounded down and the weights left over go to the largest
    remainders (ties to the earlier layer). Every count is within one of its target.

    No layer is ever emptied by default: without a single weight a layer passes on a
    constant, which disconnects a network without shortcuts, and no repair that works on
    statistics brings it back.

    Parameters
    ----------
    densities
        Target density of each layer, finite and non-negative. Where Σ density_l · n_l is not
        the budget, all are rescaled to it.
    sizes
        Number of weights of each layer.
    keep
        Total number of weights to keep.
    minimum
        Least count of a layer: one for all, or one per layer.

    Raises
    ------
    SparsemendError
        If the minimum counts do not fit into the budget (with the largest feasible sparsity),
        or a density is negative or not finite.

    Examples
    --------
    >>> round_to_budget([0.25, 0.25, 0.25], [10, 10, 10], 8)
    (3, 3, 2)
    """
    lower = [minimum] * len(sizes) if isinstance(minimum, int) else minimum
    lower = [min(least, n) for least, n in zip(lower, sizes, strict=True)]
    require_feasible(sizes, keep, lower)
    targets = _fill(_amounts(densities, sizes), lower, sizes, keep)
    counts = [math.floor(target) for target in targets]
    # sorted() is stable: equal remainders stay in layer order.
    by_remainder = sorted(range(len(sizes)), key=lambda i: counts[i] - targets[i])
    for i in by_remainder[: keep - sum(counts)]:
        counts[i] += 1
    return tuple(counts)


def _amounts(factors: Sequence[Fraction | float], sizes: Sequence[int]) -> list[Fraction]:
    for i, factor in enumerate(factors):
        if not (math.isfinite(factor) and factor >= 0):
            raise SparsemendError(
                f"density or prior of layer number {i} is no share",
                float(factor),
                "a finite number, at least 0",
            )
    return [Fraction(factor) * n for factor, n in zip(factors, sizes, strict=True)]


def _fill(
    amounts: Sequence[Fraction], lower: Sequence[int], upper: Sequence[int], keep: int
) -> list[Fraction]:
    """Solve Σ clip(f · amount_l, lower_l, upper_l) = keep for f; returns the clipped terms.

    The sum is a non-decreasing piecewise linear function of f with kinks where a term meets
    a bound: find the kinks around the solution by bisection, then solve the linear piece.
    """
    layers = range(len(amounts))
    lasting = sum(upper[i] if amounts[i] else lower[i] for i in layers)
    if keep > lasting:
        # Only layers with amount 0 are left: they share the rest at one density.
        return _fill(
            [Fraction(upper[i]) if not amounts[i] else Fraction(0) for i in layers],
            [lower[i] if not amounts[i] else upper[i] for i in layers],
            upper,
            keep,
        )

    def terms(f: Fraction) -> list[Fraction]:
        return [min(max(f * amounts[i], Fraction(lower[i])), Fraction(upper[i])) for i in layers]

    kinks = {bound / amounts[i] for i in layers if amounts[i] for bound in (lower[i], upper[i])}
    ordered = sorted(kinks | {Fraction(0)})
    low, high = 0, len(ordered)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(terms(ordered[middle])) <= keep:
            low = middle
        else:
            high = middle
    f = ordered[low]
    slope = sum((a for a, lo, hi in zip(amounts, lower, upper, strict=True) if lo <= f * a < hi))
    if slope:
        f += (keep - sum(terms(f))) / slope
    return terms(f)
