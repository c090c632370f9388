"""An allocation of a budget by a rule; of a budget that was only modelled, once more."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from sparsemend.allocation import (
    Allocation,
    CostQuota,
    Quota,
    allocate_layers,
    force_layers,
    parse_forced,
    round_to_budget,
)
from sparsemend.calibration import Calibration
from sparsemend.diagnosis import Diagnosis
from sparsemend.layers import LayerSet, layer_weights, select_layers

# How often a model of the cost is corrected by measuring, and when it is right.
_CORRECTIONS, _RIGHT = 2, 0.005


def divide(
    model: nn.Module,
    layers: LayerSet,
    quota: Quota,
    rule: str,
    diagnosis: Diagnosis | None = None,
    calibration: Calibration | None = None,
    **options: Any,
) -> Allocation:
    """The allocation of a rule, which may be a forced one."""
    weights = layer_weights(model, layers, "set of layers")
    forced = parse_forced(rule)
    name = rule if forced is None else forced.base
    moments = None if calibration is None else calibration.moments

    def alone(name: str, quota: Quota, **options: Any) -> Allocation:
        return allocate_layers(
            layers, weights, quota, name, diagnosis=diagnosis, moments=moments, **options
        )

    def plain(quota: Quota) -> Allocation:
        base = alone(name, quota, **options)
        if forced is None:
            return base
        source = alone(forced.source, quota)
        return force_layers(base, source, select_layers(layers, forced.pattern), rule, quota)

    return corrected(quota, plain(quota), plain)


def corrected(
    quota: Quota, allocation: Allocation, again: Callable[[Quota], Allocation]
) -> Allocation:
    """An allocation for costs that are right where it ends.

    Parameters
    ----------
    quota
        What may be kept.
    allocation
        Of it; where its costs are exact, the result.
    again
        Allocates a quota with other costs.
    """
    if not isinstance(quota, CostQuota) or quota.measure is None:
        return allocation
    for _ in range(_CORRECTIONS):
        better = quota.corrected(tuple(allocation.values()))
        if abs(float(better.factor / quota.factor) - 1) < _RIGHT:
            break
        quota = better
        allocation = again(quota)
    return allocation


def refilled(allocation: Allocation, quota: Quota) -> Allocation:
    """The same proportions for another budget."""
    densities = list(allocation.densities.values())
    counts = quota.fill(lambda keep: round_to_budget(densities, quota.sizes, keep))
    return Allocation(dict(zip(allocation, counts, strict=True)), allocation.sizes, allocation.rule)
