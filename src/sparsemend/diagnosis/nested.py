"""The closed form over nested masks, each weight multiplied once for the whole grid.

Weights are grouped by the density at which they enter. With Y_b = W_b Sigma for the weights of
group b alone, prefix sums E_k = Σ_{b ≤ k} Y_b = W'_k Sigma and suffix sums
F_k = Σ_{b > k} Y_b = −delta_k Sigma give, from one density to the next,

    v'_k − v'_{k−1} = Σ_{j in group k} w_j (E_k + E_{k−1})_j
    Var_{k−1} − Var_k = Σ_{j in group k} w_j (F_k + F_{k−1})_j    with Var_k = Var[z'_k − z].

The groups are disjoint, so that all Y_b together cost as many multiply-adds as one dense product,
whatever the number of densities. Nothing cancels: the outputs of few weights are sums of few
terms, and so are the errors where few weights are pruned.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.calibration import InputMoments, OutputStatistics

# Columns of Sigma at a time: so many of them stay in a core's second-level cache.
_COLUMNS = 64


def nested_statistics(
    dense: Tensor, ranks: Tensor, kept: Sequence[int], moments: InputMoments
) -> OutputStatistics:
    """Paired output statistics of a layer that keeps its best-ranked weights.

    Products are in float32 (float64 for float64 moments and weights), sums in float64.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    ranks
        Rank of every weight in the layer, same shape; 0 is pruned last.
    kept
        K ascending counts of kept weights.
    moments
        Of the layer's dense inputs.

    Returns
    -------
    OutputStatistics
        Of shape [K, C]; means are without the layer's bias.
    """
    counts = torch.tensor(kept, device=ranks.device)
    groups = torch.bucketize(ranks, counts, right=True)  # K where a weight is never kept
    parts = [
        torch.stack(_gains(weight, group, len(kept) + 1, mean, scatter))
        for weight, group, mean, scatter in zip(
            dense, groups, moments.mean, moments.scatter, strict=True
        )
    ]
    gained, lost, means = torch.cat(parts, dim=2)  # each [K + 1, C]
    pruned = gained.cumsum(0) / moments.count
    error = _after(lost) / moments.count
    return OutputStatistics(
        dense_mean=means.sum(dim=0),
        dense_variance=pruned[-1].clamp(min=0),
        pruned_variance=pruned[:-1].clamp(min=0),
        error_mean=-_after(means),
        error_variance=error.clamp(min=0),
    )


def _after(steps: Tensor) -> Tensor:
    """Σ of the later steps, for all but the last: [K + 1, C] → [K, C]."""
    return steps.flip(0).cumsum(0).flip(0)[1:]


def _gains(
    weight: Tensor, group: Tensor, size: int, mean: Tensor, scatter: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """What every group of weights adds to v', takes from the error, and adds to the mean.

    Parameters
    ----------
    weight, group
        [rows, d]; the group of every weight.
    size
        Number of groups.
    mean, scatter
        [d], [d, d].

    Returns
    -------
    tuple
        Each [size, rows], float64; the first two times the number of positions.
    """
    rows, fan_in = weight.shape
    cells = group * rows + torch.arange(rows, device=group.device).unsqueeze(1)
    columns, values, starts = _by_cell(weight, group, cells, size * rows)
    wide = mean.dtype
    gained, lost, means = (
        torch.zeros(size * rows, dtype=wide, device=weight.device) for _ in range(3)
    )
    means.index_add_(0, cells.flatten(), (weight.to(wide) * mean).flatten())
    for start in range(0, fan_in, _COLUMNS):
        block = slice(start, start + _COLUMNS)
        table = scatter[:, block].to(values.dtype, memory_format=torch.contiguous_format)
        own = F.embedding_bag(
            columns, table.contiguous(), starts, mode="sum", per_sample_weights=values
        )
        width = own.shape[1]
        place = cells[:, block] * width + torch.arange(width, device=cells.device)
        own_here = own.take(place)
        running = own.view(size, rows, width)
        before = running.clone()
        for k in range(1, size):
            before[k] += before[k - 1]
        for k in reversed(range(size - 1)):
            running[k] += running[k + 1]
        # 2 E_k − Y_k = E_k + E_{k−1}, and 2 F_k + Y_k with F_k + Y_k the suffix sum from k on.
        first = 2 * before.take(place) - own_here
        second = 2 * running.take(place) - own_here
        factor, index = weight[:, block].to(wide), cells[:, block].flatten()
        gained.index_add_(0, index, (factor * first).flatten())
        lost.index_add_(0, index, (factor * second).flatten())
    return gained.view(size, rows), lost.view(size, rows), means.view(size, rows)


def _by_cell(
    weight: Tensor, group: Tensor, cells: Tensor, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Columns and values of the weights in the order of their cells, and where each cell starts."""
    # A stable sort of small integers is a radix sort; rows are in order already.
    small = group.flatten().cpu().numpy().astype(np.min_scalar_type(int(group.max())))
    order = torch.from_numpy(np.argsort(small, kind="stable")).to(group.device)
    columns = (order % weight.shape[1]).int()
    sizes = torch.bincount(cells.flatten(), minlength=size)
    starts = (sizes.cumsum(0) - sizes).int()
    values = weight.flatten()[order]
    return columns, values if values.dtype == torch.float64 else values.float(), starts
