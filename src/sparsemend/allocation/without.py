"""An allocation in which some layers keep nothing, and the others all that there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.divide import allocate_layers
from sparsemend.allocation.quota import Quota
from sparsemend.layers.layer import Layer


def allocate_without(
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    quota: Quota,
    rule: str,
    idle: Collection[str],
) -> Allocation:
    """Divide a budget over the layers that are not to be idle.

    Parameters
    ----------
    layers, weights
        As of :func:`.allocate_layers`; all layers, in order.
    quota
        What all of them may keep.
    rule
        One that needs no diagnosis.
    idle
        Names of those that keep nothing.

    Raises
    ------
    SparsemendError
        If the others cannot keep so much, or so little.
    """
    places = [i for i, layer in enumerate(layers) if layer.name not in idle]
    rest = [replace(layers[i], order=order) for order, i in enumerate(places)]
    some = quota if not idle else quota.of_some(places)
    found = allocate_layers(rest, weights, some, rule)
    counts = {layer.name: found.get(layer.name, 0) for layer in layers}
    return Allocation(counts, {layer.name: layer.size for layer in layers}, rule)
