"""What other rules would have done with the same budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from torch import nn

from sparsemend.allocation import NEEDS_DIAGNOSIS, RULES, Allocation, allocate_layers
from sparsemend.diagnosis import Diagnosis
from sparsemend.layers import discover

# These look at shapes alone, so they can be computed for a network that is sparse already.
FROM_SHAPES = ("uniform", "erk")


def other_rules(
    model: nn.Module,
    allocation: Allocation,
    rules: Sequence[str] | None = None,
    *,
    diagnosis: Diagnosis | None = None,
) -> tuple[Allocation, ...]:
    """Allocations of the same budget over the same layers by other rules.

    Parameters
    ----------
    model
        The dense network; a sparse one will do for :data:`FROM_SHAPES`.
    allocation
        Whose layers and sparsity to take.
    rules
        Default: every rule, those that need a diagnosis where there is one.
    diagnosis
        Of the same layers.
    """
    if rules is None:
        rules = [rule for rule in RULES if rule not in NEEDS_DIAGNOSIS or diagnosis is not None]
    found = discover(model)
    layers = [dataclasses.replace(found[name], order=i) for i, name in enumerate(allocation)]
    modules = dict(model.named_modules())
    weights = {layer.name: modules[layer.name].weight.detach() for layer in layers}
    return tuple(
        allocate_layers(layers, weights, allocation.sparsity, rule, diagnosis=diagnosis)
        for rule in rules
        if rule != allocation.rule
    )
