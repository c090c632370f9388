"""SparseGPT (arXiv 2301.00774), with unfolded inputs for convolutions.

Layer by layer in execution order, with inputs from the network pruned so far. Columns are
visited once from left to right; the error of what is pruned there moves to the columns on the
right through the Cholesky factor of the inverse Hessian.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.peers._walk import damped, prune_in_order
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet
from sparsemend.patterns.n_of_m import NOfM

DAMPING = 0.01
BLOCK = 128


def sparsegpt(
    model: nn.Module, batches: Sequence[Batch], layers: LayerSet, allocation: Mapping[str, int]
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count; the masks that keep it."""
    pattern = next(iter(layers)).pattern
    group = (pattern.n, pattern.m) if isinstance(pattern, NOfM) else None
    prune = partial(prune_layer, group=group)
    return prune_in_order(model, batches, layers, allocation, prune)


def prune_layer(
    weight: Tensor,
    second: Tensor,
    kept: int,
    *,
    damping: float = DAMPING,
    block: int = BLOCK,
    group: tuple[int, int] | None = None,
) -> tuple[Tensor, Tensor]:
    """Prune one layer.

    Parameters
    ----------
    weight
        [groups, rows, d].
    second
        X Xᵀ up to a factor, [groups, d, d].
    kept
        Number of weights to keep; every block of columns keeps its share of them, rounded so
        that the sum is exact, as the block's threshold decides over all rows.
    damping
        Added to the diagonal, as a fraction of its mean.
    block
        Columns whose mask is chosen together, after the errors of all columns before.
    group
        n and m where every row keeps n of every m columns, which are then chosen together; m
        divides the block.

    Returns
    -------
    tuple of Tensor
        New weights and boolean mask.
    """
    weight = weight.clone()
    mask = torch.ones_like(weight, dtype=torch.bool)
    width = weight.shape[2]
    pruned = weight.numel() - kept
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped(second, damping)))
    factor = torch.linalg.cholesky(inverse, upper=True)
    pivots = factor.diagonal(dim1=1, dim2=2)
    for start in range(0, width, block):
        stop = min(start + block, width)
        due = pruned * stop // width - pruned * start // width
        part = weight[:, :, start:stop]
        if group is None:
            score = (part / pivots[:, None, start:stop]).square()
            keep = torch.ones(score.numel(), dtype=torch.bool, device=weight.device)
            keep[torch.argsort(score.flatten(), stable=True)[:due]] = False
            mask[:, :, start:stop] = keep.reshape(part.shape)
        errors = torch.zeros_like(part)
        for column in range(start, stop):
            if group is not None and column % group[1] == 0:
                n, together = group[0], slice(column, column + group[1])
                score = (weight[:, :, together] / pivots[:, None, together]).square()
                order = torch.sort(score, dim=2, descending=True, stable=True).indices
                mask[:, :, together].scatter_(2, order[:, :, n:], False)
            lost = weight[:, :, column] * ~mask[:, :, column]
            error = lost / pivots[:, None, column]
            right = factor[:, column, column:stop]
            weight[:, :, column:stop] -= error.unsqueeze(2) * right.unsqueeze(1)
            errors[:, :, column - start] = error
        weight[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    return weight * mask, mask
