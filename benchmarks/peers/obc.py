"""Optimal Brain Compression with ExactOBS pruning (arXiv 2208.11580).

Every row is pruned greedily, weight by weight: the one whose removal costs least, the others
of the row compensating for it optimally, down to nothing. Then the losses recorded on the way
say how many weights each row of the layer gives, and each row is solved for its count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers._walk import damped, get_weight, hessian, walk
from sparsemend.calibration.cross import cross_sum
from sparsemend.execution.batches import evaluation_mode
from sparsemend.execution.lockstep import lockstep
from sparsemend.layers import (
    Layer,
    LayerSet,
    channel_last,
    channel_shape,
    set_weight,
    stored_weight,
)
from sparsemend.repairs.channelwise import paired_runs
from sparsemend.session import Session

# Of the mean diagonal: only so that the inverse exists.
DAMPING = 1e-4
# Elements of the inverse Hessians that are updated together: what a core's cache holds.
_CACHED = 1 << 18


def obc(
    model: nn.Module, batches: Sequence[Tensor], layers: LayerSet, allocation: Mapping[str, int]
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count, with inputs from the dense network.

    Returns
    -------
    dict
        Layer name → boolean mask of the stored weight's shape, True where kept.
    """
    solved = {}
    for layer, geometry, inputs in walk(model, batches, layers):
        second = hessian(geometry, layer, inputs)
        weight = get_weight(model, layer)
        solved[layer.name] = prune_layer(weight, second, allocation[layer.name])
    masks = {}
    for name, (weight, mask) in solved.items():
        set_weight(model, layers[name], weight)
        masks[name] = stored_weight(mask, layers[name])
    return masks


def obc_sequential(
    model: nn.Module,
    batches: Sequence[Tensor],
    layers: LayerSet,
    allocation: Mapping[str, int],
    dense: nn.Module,
) -> dict[str, Tensor]:
    """Prune in execution order, every layer first refitted to the dense network's outputs.

    Inputs come from the network pruned so far; the refit is least squares over all weights,
    where the published algorithm would start from the trained ones.

    Parameters
    ----------
    model
        Changed in place; its weights are the dense ones.
    batches, layers, allocation
        As in :func:`obc`.
    dense
        The dense network.
    """
    masks = {}
    count = len(batches)
    session = Session(dense, list(batches))
    runs, order = paired_runs(session, model, list(layers))
    with evaluation_mode(dense, model):
        for pause in lockstep(runs, order):
            layer = layers[pause.name]
            module, reference = model.get_submodule(pause.name), dense.get_submodule(pause.name)
            inputs = [pause.calls[count + index][1] for index in range(count)]
            targets = [reference.forward(pause.calls[index][1]) for index in range(count)]
            second = hessian(module, layer, inputs)
            start = refit(module, layer, second, inputs, targets)
            weight, mask = prune_layer(start, second, allocation[layer.name])
            set_weight(model, layer, weight)
            masks[layer.name] = stored_weight(mask, layer)
    return masks


def refit(
    module: Any,
    layer: Layer,
    second: Tensor,
    inputs: Sequence[Tensor],
    targets: Sequence[Tensor],
    damping: float = DAMPING,
) -> Tensor:
    """Least squares over all weights of a layer, its bias as it is, [groups, rows, d]."""
    positions = sum(len(channel_last(module, target)) for target in targets)
    if module.bias is not None:
        bias = module.bias.detach().reshape(channel_shape(layer))
        targets = [target - bias for target in targets]
    total = torch.zeros(layer.groups, layer.rows // layer.groups, layer.fan_in).to(second)
    for x, target in zip(inputs, targets, strict=True):
        total += cross_sum(module, layer, x, target)
    factor = torch.linalg.cholesky(damped(second, damping))
    return torch.cholesky_solve((total / positions).mT, factor).mT


def prune_layer(
    weight: Tensor, second: Tensor, kept: int, damping: float = DAMPING
) -> tuple[Tensor, Tensor]:
    """Prune one layer.

    Parameters
    ----------
    weight
        [groups, rows, d].
    second
        X Xᵀ up to a factor, [groups, d, d].
    kept
        Number of weights to keep.
    damping
        Added to the diagonal, as a fraction of its mean.

    Returns
    -------
    tuple of Tensor
        New weights and boolean mask.
    """
    second = damped(second, damping)
    traces = [eliminate(w, h) for w, h in zip(weight, second, strict=True)]
    order = torch.stack([trace[0] for trace in traces])
    losses = torch.stack([trace[1] for trace in traces])
    counts = row_counts(losses.flatten(0, 1), weight.numel() - kept).reshape(weight.shape[:2])
    gone = torch.arange(weight.shape[2], device=weight.device) < counts.unsqueeze(2)
    mask = torch.ones_like(gone).scatter_(2, order, ~gone)
    return solve_rows(weight, second, mask), mask


def eliminate(weight: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Prune every row greedily down to nothing, by Optimal Brain Surgeon.

    Parameters
    ----------
    weight
        [rows, d].
    second
        The Hessian of every row, up to a factor, [d, d].

    Returns
    -------
    tuple of Tensor
        Columns in the order of their removal, and what each removal costs, both [rows, d].
    """
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(second))
    parts = weight.split(max(1, _CACHED // inverse.numel()))
    traces = [_eliminate(part, inverse) for part in parts]
    return torch.cat([trace[0] for trace in traces]), torch.cat([trace[1] for trace in traces])


def _eliminate(weight: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
    count, width = weight.shape
    rows = torch.arange(count, device=weight.device)
    columns = torch.arange(width, device=weight.device).repeat(count, 1)
    weight, inverse = weight.clone(), inverse.repeat(count, 1, 1)
    order, losses = torch.empty_like(columns), torch.empty_like(weight)
    for step in range(width):
        last = width - step - 1
        left = inverse[:, : last + 1, : last + 1]
        now = weight[:, : last + 1]
        cost = now.square() / left.diagonal(dim1=1, dim2=2)
        losses[:, step], place = cost.min(dim=1)
        order[:, step] = columns[rows, place]
        column = left[rows, place]
        pivot = column[rows, place].unsqueeze(1)
        now -= column * (now[rows, place].unsqueeze(1) / pivot)
        left.addcmul_(column.unsqueeze(2), (column / pivot).unsqueeze(1), value=-1)
        # The last column takes the place of the one removed, so that what is left is compact.
        weight[rows, place] = weight[:, last].clone()
        columns[rows, place] = columns[:, last].clone()
        left[rows, place] = left[:, last].clone()
        left[rows, :, place] = left[:, :, last].clone()
    return order, losses


def row_counts(losses: Tensor, pruned: int) -> Tensor:
    """How many weights every row loses, when always the row with the cheapest next one gives.

    Parameters
    ----------
    losses
        [rows, d], in the order of removal within each row.
    pruned
        Number of weights that the rows lose together.
    """
    # A row whose next removal is dear waits until all cheaper ones are taken, and what follows
    # in that row is available only then: the running maximum sorts the same way.
    cost = losses.cummax(dim=1).values.flatten()
    chosen = torch.argsort(cost, stable=True)[:pruned]
    return torch.bincount(chosen // losses.shape[1], minlength=losses.shape[0])


def solve_rows(weight: Tensor, second: Tensor, mask: Tensor) -> Tensor:
    """What Optimal Brain Surgeon leaves of every row, in closed form, [groups, rows, d].

    Removing weights one by one and compensating each time ends at the minimiser of
    (w − w₀)ᵀ H (w − w₀) over the kept weights w.
    """
    right = weight @ second
    solved = torch.zeros_like(weight)
    for group, row in mask.any(dim=2).nonzero().tolist():
        kept = mask[group, row].nonzero().flatten()
        system = second[group][kept][:, kept]
        factor = torch.linalg.cholesky(system)
        solved[group, row, kept] = torch.cholesky_solve(
            right[group, row, kept].unsqueeze(1), factor
        ).squeeze(1)
    return solved
