"""ALPS (arXiv 2406.07831): a support by ADMM on the layer's own outputs, then conjugate gradients.

Layer by layer in execution order, with inputs from the network pruned so far, and the dense
weights' outputs on these as targets. Inputs are scaled to a diagonal of ones, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from benchmarks.peers._walk import damped, prune_in_order
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet
from sparsemend.solvers.splitting import largest_entries

DAMPING = 0.01
PENALTY, EVERY, MOST = 0.1, 3, 300
# Growth of the penalty by the share of the support that has changed since the last update.
GROWTH = ((0.1, 1.3), (0.005, 1.2), (0.0, 1.1))
STEPS = 10


def alps(
    model: nn.Module, batches: Sequence[Batch], layers: LayerSet, allocation: Mapping[str, int]
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count; the masks that keep it."""
    return prune_in_order(model, batches, layers, allocation, prune_layer)


def prune_layer(weight: Tensor, second: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Prune one layer.

    Parameters
    ----------
    weight
        [groups, rows, d].
    second
        X Xᵀ up to a factor, [groups, d, d].
    kept
        Number of weights to keep, of all rows together.

    Returns
    -------
    tuple of Tensor
        New weights and boolean mask.
    """
    second = damped(second, DAMPING)
    scale = second.diagonal(dim1=1, dim2=2).sqrt().unsqueeze(1)
    second = second / (scale * scale.mT)
    weight = weight * scale
    target = weight @ second
    sparse, mask = _split(weight.float(), second.float(), target.float(), kept)
    sparse = sparse.to(weight)
    return _refit(sparse, second, target, mask) / scale, mask


def _split(weight: Tensor, second: Tensor, target: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """ADMM until the support stays as it is."""
    values, vectors = torch.linalg.eigh(second)
    penalty, dual = PENALTY, torch.zeros_like(weight)
    mask = before = largest_entries(weight, kept)
    sparse = weight * mask
    for step in range(1, MOST + 1):
        turned = (target - dual + penalty * sparse) @ vectors
        dense = turned / (values + penalty).unsqueeze(1) @ vectors.mT
        combined = dense + dual / penalty
        mask = largest_entries(combined, kept)
        sparse = combined * mask
        dual = dual + penalty * (dense - sparse)
        if step % EVERY == 0:
            changed = int((mask ^ before).sum())
            if not changed:
                break
            share = changed / max(1, kept)
            penalty *= next(factor for least, factor in GROWTH if share >= least)
            before = mask
    return sparse, mask


def _refit(start: Tensor, second: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """A few conjugate gradients on the support, from the splitting's values."""
    solution = start * mask
    residual = (target - solution @ second) * mask
    direction, square = residual.clone(), residual.square().sum()
    for _ in range(STEPS):
        product = (direction @ second) * mask
        curvature = (direction * product).sum()
        if curvature <= 0:
            break
        step = square / curvature
        solution, residual = solution + step * direction, residual - step * product
        new = residual.square().sum()
        direction, square = residual + new / square * direction, new
    return solution
