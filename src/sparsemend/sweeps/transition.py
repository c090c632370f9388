"""Where recoverability ends: midpoints, bands, and which rule leads (method, section 6).

Recovery falls with sparsity, but for the noise of calibration and of finite test sets. So a
seed's curve is replaced by the non-increasing one nearest to it in least squares (isotonic
regression, every sparsity weighing the same), and read between its points by linear
interpolation. Nothing is read beyond the ends of the sweep.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from sparsemend.sweeps.records import Lead, Measure, Record, Spread, Transition

MIDPOINT, START, END = 0.5, 0.8, 0.2

Curve = Sequence[tuple[float, float]]


def monotone(curve: Curve) -> list[tuple[float, float]]:
    """The non-increasing curve nearest to this one, by ascending sparsity.

    Parameters
    ----------
    curve
        Pairs (sparsity, recovery), sparsities distinct.
    """
    if not curve:
        return []
    from sklearn.isotonic import IsotonicRegression

    sparsities, values = np.array(sorted(curve), dtype=np.float64).T
    fitted = IsotonicRegression(increasing=False).fit_transform(sparsities, values)
    return list(zip(sparsities.tolist(), fitted.tolist(), strict=True))


def crossing(curve: Curve, level: float) -> float | None:
    """Sparsity at which the monotone curve passes a level, None if it does not in the sweep.

    Where the curve rests at the level, the middle of that stretch.

    Examples
    --------
    >>> crossing([(0.8, 1.0), (0.9, 0.0)], 0.25)
    0.875
    """
    points = monotone(curve)
    if not points or not points[0][1] >= level >= points[-1][1]:
        return None
    last_above = max(i for i, (_, value) in enumerate(points) if value >= level)
    first_below = min(i for i, (_, value) in enumerate(points) if value <= level)
    if first_below <= last_above:  # at the level from the one to the other
        return (points[first_below][0] + points[last_above][0]) / 2
    (s0, r0), (s1, r1) = points[last_above], points[first_below]
    return s0 + (s1 - s0) * (r0 - level) / (r0 - r1)


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation of the values that are there."""
    found = [value for value in values if value is not None]
    return Spread(
        mean=statistics.fmean(found) if found else None,
        std=statistics.stdev(found) if len(found) > 1 else None,
        count=len(found),
    )


def transitions(records: Iterable[Record], measure: Measure) -> tuple[Transition, ...]:
    """The transition of every (network, rule, mask, repair) that has this measure."""
    found = []
    groups = grouped(records, "network", "rule", "mask", "repair")
    for (network, rule, mask, repair), own in groups.items():
        if curves := seed_curves(own, measure):
            midpoint, start, end = (
                spread(crossing(curve, level) for curve in curves)
                for level in (MIDPOINT, START, END)
            )
            whose = (network, rule, mask, repair)
            found.append(Transition(*whose, measure, midpoint, start, end))
    return tuple(found)


def grouped(records: Iterable[Record], *names: str) -> dict[tuple[Any, ...], list[Record]]:
    """Records by attributes of their cells; the groups keep the order of their first records."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        group = tuple(getattr(record.cell, name) for name in names)
        groups.setdefault(group, []).append(record)
    return groups


def seed_curves(records: Iterable[Record], measure: Measure) -> list[Curve]:
    """A curve (sparsity, recovery) for every calibration seed that has this measure.

    Cells of targets are on none.
    """
    seeds: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        recovery, sparsity = record.recovery(measure), record.cell.sparsity
        if recovery is not None and sparsity is not None:
            seeds.setdefault(record.cell.seed, []).append((sparsity, recovery))
    return list(seeds.values())


def mean_curve(curves: Sequence[Curve]) -> list[tuple[float, float]]:
    """Mean recovery over seeds at the sparsities that all of them have, made monotone."""
    shared = set.intersection(*({s for s, _ in curve} for curve in curves))
    tables = [dict(curve) for curve in curves]
    return monotone([(s, statistics.fmean(table[s] for table in tables)) for s in sorted(shared)])


def leading(curves: Mapping[str, Curve]) -> list[tuple[str, float, float, float]]:
    """Which rule recovers most, over the sparsities that all of them cover.

    Parameters
    ----------
    curves
        Rule → pairs (sparsity, recovery), read by linear interpolation.

    Returns
    -------
    Stretches (rule, start, end, margin) by ascending sparsity, without gaps; the margin is the
    rule's largest lead over the next one there. Among equals the rule that led so far goes on
    leading; at the start, the first in the order of ``curves``.

    Examples
    --------
    >>> leading({"a": [(0.5, 1), (0.9, 0)], "b": [(0.5, 0.75), (0.9, 0.25)]})
    [('a', 0.5, 0.7, 0.25), ('b', 0.7, 0.9, 0.25)]
    """
    points = {rule: np.array(sorted(curve), dtype=np.float64).T for rule, curve in curves.items()}
    if len(points) < 2 or any(not array.size for array in points.values()):
        return []
    low = max(array[0][0] for array in points.values())
    high = min(array[0][-1] for array in points.values())
    grid = sorted({s for array in points.values() for s in array[0].tolist() if low <= s <= high})

    def values(at: float) -> dict[str, float]:
        return {rule: float(np.interp(at, *array)) for rule, array in points.items()}

    stretches: list[tuple[str, float, float, float]] = []
    for start, end in pairwise(grid):
        # Between these cuts no two curves meet, so the order of the rules does not change.
        cuts = [start, *_crossings(values(start), values(end), start, end), end]
        for left, right in pairwise(cuts):
            here = values((left + right) / 2)
            leader = max(here, key=lambda rule: here[rule])
            last = stretches[-1] if stretches else None
            if last is not None and here[last[0]] >= here[leader]:
                leader = last[0]
            margin = max(_margin(values(at), leader) for at in (left, right))
            if last is not None and last[0] == leader:
                stretches[-1] = (leader, last[1], right, max(margin, last[3]))
            else:
                stretches.append((leader, left, right, margin))
    return stretches


def _margin(values: Mapping[str, float], leader: str) -> float:
    return values[leader] - max(value for rule, value in values.items() if rule != leader)


def _crossings(
    left: Mapping[str, float], right: Mapping[str, float], start: float, end: float
) -> list[float]:
    """Sparsities strictly between start and end at which two of the lines meet."""
    rules, cuts = list(left), set()
    for i, a in enumerate(rules):
        for b in rules[i + 1 :]:
            before, after = left[a] - left[b], right[a] - right[b]
            if before * after < 0:
                cuts.add(start + (end - start) * before / (before - after))
    return sorted(cut for cut in cuts if start < cut < end)


def leads(records: Iterable[Record], measure: Measure) -> tuple[Lead, ...]:
    """Which rule leads where, for every (network, mask, repair) with several rules."""
    found = []
    for (network, mask, repair), here in grouped(records, "network", "mask", "repair").items():
        rules = {rule: seed_curves(own, measure) for (rule,), own in grouped(here, "rule").items()}
        means = {rule: mean_curve(curves) for rule, curves in rules.items() if curves}
        found += [Lead(network, mask, repair, measure, *stretch) for stretch in leading(means)]
    return tuple(found)
