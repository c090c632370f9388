"""Least damage after repair: spend every weight where it heals most."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise

import numpy as np

from sparsemend.allocation.problem import Array, Problem
from sparsemend.allocation.rule import Rule
from sparsemend.calibration import kept_count
from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer

Point = tuple[int, Fraction]


def rr(problem: Problem) -> tuple[int, ...]:
    """Minimise Σ_l residual_l(density_l) under the budget.

    This project's reading of "allocate repairable damage" (arXiv 2605.25508): ``residual`` is
    the normalised damage of a layer that is left after its repair. Each layer's curve over
    the diagnosis' densities, expressed in whole weights, is replaced by its lower convex
    hull. On hulls the optimum is greedy: segments are bought in order of damage healed per
    weight (where weights have prices, per price), which is the multiplier of the budget constraint
    going down. The result is optimal
    for the hulls; it is optimal for the curves too where it ends on vertices. At most one
    layer ends inside a segment.

    Below the smallest diagnosed density the first segment of the hull goes on in a straight
    line. A layer keeps at least one weight, and a layer that keeps all has no damage, whether
    the grid reaches density 1 or not. Equal slopes go to the earlier layer.

    Returns
    -------
    Kept count of each layer, in execution order.

    Raises
    ------
    SparsemendError
        If the diagnosis is missing, is of other layers, or holds a residual that is not finite.
    """
    return least_damage(problem, *problem.curves("residual", rule="rr"))


def least_damage(
    problem: Problem, densities: Array, damage: Array, least: Sequence[int] = ()
) -> tuple[int, ...]:
    """Minimise Σ_l damage_l(density_l) under the budget, as :func:`rr` says.

    Parameters
    ----------
    problem
        Layers, budget and prices.
    densities
        Ascending densities in (0, 1], shape [K].
    damage
        Of every layer at each of them, shape [L, K].
    least
        What each layer keeps in any case, at least 1 and in all no more than the budget; default 1.

    Raises
    ------
    SparsemendError
        If a damage is not finite.
    """
    counts = list(least) or [1] * len(problem.layers)
    segments = []
    for i, layer in enumerate(problem.layers):
        if not np.isfinite(damage[i]).all():
            raise SparsemendError(
                f"residual of layer {layer.name!r} in the diagnosis is no number",
                damage[i].tolist(),
                "finite values",
                "diagnose again with more calibration data",
            )
        hull = lower_hull(count_curve(densities, damage[i], layer))
        start = counts[i]
        for (left, high), (right, low) in pairwise(hull):
            if right > start:
                slope = (low - high) / (right - left) / problem.price(i)
                segments.append((slope, i, start, right))
                start = right
    left_over = problem.keep - sum(counts)
    # Within a layer the slopes rise along the hull, so its segments come in order.
    for _, i, start, stop in sorted(segments):
        bought = min(stop - start, left_over)
        counts[i] += bought
        left_over -= bought
    return tuple(counts)


def count_curve(densities: Array, values: Array, layer: Layer) -> list[Point]:
    """A curve over densities as points (kept count, value), counts ascending and distinct.

    Counts are those that the diagnosis was made with. Where several densities give one count, as in
    small layers, the first stands for it. The curve ends in (n, 0) unless the grid has its own
    value there.
    """
    points: dict[int, Fraction] = {}
    for density, value in zip(densities.tolist(), values.tolist(), strict=True):
        points.setdefault(kept_count(density, layer), Fraction(value))
    points.setdefault(layer.size, Fraction(0))
    return list(points.items())


def lower_hull(points: Sequence[Point]) -> list[Point]:
    """Vertices of the lower convex hull of points with ascending abscissae, exactly."""
    hull: list[Point] = []
    for x, y in points:
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = hull[-2:]
            if (y1 - y0) * (x - x1) < (y - y1) * (x1 - x0):
                break
            hull.pop()
        hull.append((x, y))
    return hull


RR = Rule("rr", rr, needs="diagnosis", colour="red", rank=5)
