"""Costs that have to be measured: a model of the layers' shares, fitted to two pruned networks."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from sparsemend.allocation import CostQuota, added_up
from sparsemend.errors import SparsemendError
from sparsemend.targets.kind import Subject

# Densities of the two networks: both sparse enough to be stored and run as such.
DENSITIES = (0.02, 0.1)

Shape = Callable[[int], float]


def two_counts(subject: Subject) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Counts of the two networks, the sparser one first.

    Raises
    ------
    SparsemendError
        If the layers are so small, or so bound to a pattern, that there are no two.
    """
    few, many = (subject.uniform(density) for density in DENSITIES)
    if sum(few) >= sum(many):
        raise SparsemendError(
            "the network cannot be pruned to two densities, so what weights cost is not known",
            f"{sum(few)} of {sum(subject.sizes)} weights at both",
            fix="choose a sparsity, or target_flops",
        )
    return few, many


def fitted(
    subject: Subject,
    limit: float,
    shapes: Sequence[Shape],
    measured: Mapping[tuple[int, ...], float],
    measure: Callable[[tuple[int, ...]], float],
) -> CostQuota:
    """A quota whose costs go through what was measured.

    cost(counts) = fixed + scale · Σ shape_l(count_l), with the two constants from two measurements.

    Parameters
    ----------
    subject
        What is to be pruned.
    limit
        What it may cost.
    shapes
        Of each layer: kept count → its share of the cost, in any unit.
    measured
        Counts → cost of two networks, the sparser one first.
    measure
        Measures another.

    Raises
    ------
    SparsemendError
        If the network with more weights does not cost more.
    """
    (few, cheap), (many, dear) = measured.items()
    amounts = [
        sum(shape(kept) for shape, kept in zip(shapes, counts, strict=True))
        for counts in (few, many)
    ]
    scale = (dear - cheap) / (amounts[1] - amounts[0])
    if not scale > 0:
        raise SparsemendError(
            f"keeping {sum(many)} weights was measured to cost no more than {sum(few)}",
            f"{dear:.4g} and {cheap:.4g}",
            fix="the machine is too busy to measure, or the network too small: choose a sparsity",
        )

    def scaled(shape: Shape) -> Shape:
        return lambda kept: scale * shape(kept)

    return CostQuota(
        sizes=subject.sizes,
        spend=added_up(tuple(map(scaled, shapes))),
        prices=_prices(shapes, few, many),
        limit=limit,
        fixed=cheap - scale * amounts[0],
        measure=measure,
        structures=subject.structures,
    )


def _prices(shapes: Sequence[Shape], few: Sequence[int], many: Sequence[int]) -> tuple[float, ...]:
    """What a further weight costs between the two."""
    found = []
    for shape, less, more in zip(shapes, few, many, strict=True):
        more = max(more, less + 1)
        found.append((shape(more) - shape(less)) / (more - less))
    return tuple(found)


def read_quantity(value: object, units: Mapping[str, float]) -> float | None:
    """A positive number with one of the units; None for anything else."""
    if not isinstance(value, str):
        return None
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*", value)
    if found is None or found[2] not in units or float(found[1]) <= 0:
        return None
    return float(found[1]) * units[found[2]]
