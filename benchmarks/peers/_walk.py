"""What the peers share: layers in execution order with their inputs, and the Hessian."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.calibration import InputMoments
from sparsemend.execution.batches import Batch, evaluation_mode, padding_of
from sparsemend.execution.lockstep import lockstep, pause
from sparsemend.execution.replica import run_replica
from sparsemend.layers import (
    Call,
    Layer,
    LayerCalls,
    LayerSet,
    batched,
    layer_weight,
    set_weight,
    stored_weight,
    unfold,
    weight_matrix,
)


def walk(
    model: nn.Module, batches: Sequence[Batch], layers: LayerSet
) -> Iterator[tuple[Layer, Any, list[Tensor]]]:
    """Stop before every layer of one network, which may then be changed.

    Yields
    ------
    tuple
        The layer, how it is called, and its inputs without padding, one tensor per batch.
    """

    def stop(layer: Layer, called: Call) -> None:
        pause(layer.name, called.geometry, called.x)

    def run(batch: Batch) -> None:
        calls = LayerCalls(model, layers, before=stop, padding=padding_of(batch))
        run_replica(model, batch, within=calls)

    runs = [partial(run, batch) for batch in batches]
    with evaluation_mode(model):
        for at in lockstep(runs, layers.names):
            calls = [at.calls[index] for index in sorted(at.calls)]
            yield layers[at.name], calls[0][0], [batched(*called) for called in calls]


def prune_in_order(
    model: nn.Module,
    batches: Sequence[Batch],
    layers: LayerSet,
    allocation: Mapping[str, int],
    prune_layer: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count, each on the network pruned so far.

    Parameters
    ----------
    model, batches, layers
        The network, its inputs and what is pruned of it.
    allocation
        Layer name → number of weights to keep.
    prune_layer
        (weight [groups, rows, d], Hessian [groups, d, d], count) → new weights and boolean mask.

    Returns
    -------
    dict
        Layer name → boolean mask of the stored weight's shape, True where kept.
    """
    masks = {}
    for layer, geometry, inputs in walk(model, batches, layers):
        weight = get_weight(model, layer)
        second = hessian(geometry, layer, inputs)
        weight, mask = prune_layer(weight, second, allocation[layer.name])
        set_weight(model, layer, weight)
        masks[layer.name] = stored_weight(mask, layer)
    return masks


def hessian(geometry: Any, layer: Layer, inputs: Sequence[Tensor]) -> Tensor:
    """X Xᵀ over all positions, divided by their number and not centred, [groups, d, d]."""
    moments = InputMoments.empty(layer.groups, layer.fan_in, inputs[0].device)
    for x in inputs:
        for chunk in unfold(geometry, x):
            moments.update(chunk)
    mean = moments.mean.unsqueeze(2)
    return moments.covariance.to(mean.dtype) + mean @ mean.mT


def damped(matrix: Tensor, damping: float) -> Tensor:
    """Add a fraction of the mean diagonal to the diagonal of [groups, d, d]."""
    mean = matrix.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    # Inputs that are all zero leave nothing to invert.
    added = torch.where(mean > 0, damping * mean, 1.0)
    return matrix + torch.diag_embed(added.expand(matrix.shape[:2]))


def get_weight(model: nn.Module, layer: Layer) -> Tensor:
    """The weight as float64 [groups, rows per group, d]."""
    return weight_matrix(layer_weight(model, layer).double(), layer)
