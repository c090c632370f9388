"""What the peers share: layers in execution order with their inputs, and the Hessian."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.calibration import InputMoments
from sparsemend.execution.batches import call, evaluation_mode
from sparsemend.execution.lockstep import lockstep, module_stops
from sparsemend.layers import Layer, LayerSet, stored_weight, unfold, weight_matrix


def walk(
    model: nn.Module, batches: Sequence[Tensor], layers: LayerSet
) -> Iterator[tuple[Layer, nn.Module, list[Tensor]]]:
    """Stop before every layer of one network, which may then be changed.

    Yields
    ------
    tuple
        The layer, its module, and its inputs, one tensor per batch.
    """
    runs = [lambda batch=batch: call(model, batch) for batch in batches]
    stops = {model.get_submodule(layer.name): layer.name for layer in layers}
    with evaluation_mode(model), module_stops(stops):
        for pause in lockstep(runs, stops.values()):
            inputs = [pause.calls[index][1] for index in sorted(pause.calls)]
            yield layers[pause.name], model.get_submodule(pause.name), inputs


def hessian(module: nn.Module, layer: Layer, inputs: Sequence[Tensor]) -> Tensor:
    """X Xᵀ over all positions, divided by their number and not centred, [groups, d, d]."""
    moments = InputMoments.empty(layer.groups, layer.fan_in, inputs[0].device)
    for x in inputs:
        for chunk in unfold(module, x):
            moments.update(chunk)
    mean = moments.mean.unsqueeze(2)
    return moments.covariance.to(mean.dtype) + mean @ mean.mT


def damped(matrix: Tensor, damping: float) -> Tensor:
    """Add a fraction of the mean diagonal to the diagonal of [groups, d, d]."""
    mean = matrix.diagonal(dim1=1, dim2=2).mean(dim=1, keepdim=True)
    # Inputs that are all zero leave nothing to invert.
    added = torch.where(mean > 0, damping * mean, 1.0)
    return matrix + torch.diag_embed(added.expand(matrix.shape[:2]))


def get_weight(module: Any, layer: Layer) -> Tensor:
    """The weight as float64 [groups, rows per group, d]."""
    matrix: Tensor = module.weight.detach().double()
    return weight_matrix(matrix, layer)


def set_weight(module: Any, layer: Layer, matrix: Tensor) -> None:
    """Write [groups, rows per group, d] back into the module."""
    with torch.no_grad():
        module.weight.copy_(stored_weight(matrix, layer))
