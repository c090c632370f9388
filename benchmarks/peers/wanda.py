"""Wanda (arXiv 2306.11695): weights times the norms of their inputs, compared within a row.

Layer by layer in execution order, with inputs from the network pruned so far; kept weights stay as
they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.peers._walk import get_weight, hessian, walk
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet, set_weight, stored_weight


def wanda(
    model: nn.Module, batches: Sequence[Batch], layers: LayerSet, allocation: Mapping[str, int]
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count.

    Returns
    -------
    dict
        Layer name → boolean mask of the stored weight's shape, True where kept.
    """
    masks = {}
    for layer, geometry, inputs in walk(model, batches, layers):
        weight = get_weight(model, layer)
        second = hessian(geometry, layer, inputs)
        mask = choose(weight, second.diagonal(dim1=1, dim2=2), allocation[layer.name])
        set_weight(model, layer, weight * mask)
        masks[layer.name] = stored_weight(mask, layer)
    return masks


def choose(weight: Tensor, square: Tensor, kept: int) -> Tensor:
    """The mask of a layer: every row keeps the same number of weights.

    Parameters
    ----------
    weight
        [groups, rows, d].
    square
        Mean squares of the inputs, [groups, d].
    kept
        Number of weights to keep; of what is left over, the first rows keep one more each.
    """
    score = weight.abs() * square.sqrt().unsqueeze(1)
    share, rest = divmod(kept, score.shape[0] * score.shape[1])
    counts = torch.full(score.shape[:2], share).flatten()
    counts[:rest] += 1
    order = torch.argsort(score, dim=2, descending=True, stable=True)
    first = torch.arange(score.shape[2]) < counts.reshape(*score.shape[:2], 1)
    return torch.zeros_like(score, dtype=torch.bool).scatter_(2, order, first)
