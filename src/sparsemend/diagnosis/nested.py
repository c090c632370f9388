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

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.calibration import InputMoments, OutputStatistics

# Elements of the columns of Sigma that are read at a time: they stay in a core's second-level
# cache, from where every weight fetches one row of them.
_TABLE = 3 << 16


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
    size = len(kept) + 1
    rest = moments.centred_rows()
    sums, means = [], []
    for g, (weight, group) in enumerate(zip(dense, groups, strict=True)):
        cells = _Cells(weight, group, size)
        if rest is None:
            sums.append(_from_scatter(cells, moments.scatter[g]))
        else:
            sums.append(_from_rows(cells, rest[g]))
        means.append(cells.add(weight.to(moments.mean) * moments.mean[g], slice(None)))
    pruned, error = torch.cat(sums, dim=2) / moments.count
    parts = torch.cat(means, dim=1)
    return OutputStatistics(
        dense_mean=parts.sum(dim=0),
        dense_variance=pruned[-1].clamp(min=0),
        pruned_variance=pruned[:-1].clamp(min=0),
        error_mean=-_after(parts)[:-1],
        error_variance=error[:-1].clamp(min=0),
    )


def _after(steps: Tensor) -> Tensor:
    """Σ of the later steps, [K + 1, C]."""
    return torch.cat([steps.flip(0).cumsum(0).flip(0)[1:], torch.zeros_like(steps[:1])])


class _Cells:
    """One group's weights [rows, d], sorted into cells (group of the grid, row).

    Parameters
    ----------
    weight, group
        [rows, d]; the group of every weight.
    size
        Number of groups.
    """

    def __init__(self, weight: Tensor, group: Tensor, size: int) -> None:
        self.weight, self.size, self.rows = weight, size, weight.shape[0]
        rows = torch.arange(self.rows, device=group.device)
        self.number = group * self.rows + rows.unsqueeze(1)  # [rows, d]
        self._columns, self._values, self._starts = _by_cell(
            weight, group, self.number, size * self.rows
        )

    def blocks(self, columns: int) -> Iterator[slice]:
        """Cut so many columns into blocks that fit the cache."""
        width = max(16, min(256, _TABLE // self.weight.shape[1] // 16 * 16))
        yield from (slice(start, start + width) for start in range(0, columns, width))

    def multiply(self, table: Tensor) -> Tensor:
        """Each cell's weights times a table [d, width] → [size, rows, width]."""
        table = table.to(self._values.dtype).contiguous()
        found = F.embedding_bag(
            self._columns, table, self._starts, mode="sum", per_sample_weights=self._values
        )
        return found.view(self.size, self.rows, -1)

    def add(self, values: Tensor, block: slice) -> Tensor:
        """Sum values of a block of columns [rows, width] over each cell, [size, rows]."""
        total = values.new_zeros(self.size * self.rows)
        total.index_add_(0, self.number[:, block].flatten(), values.flatten())
        return total.view(self.size, self.rows)


def _running(own: Tensor) -> tuple[Tensor, Tensor]:
    """Prefix and suffix sums over the first dimension, both inclusive; ``own`` is overwritten."""
    before = own.clone()
    for k in range(1, len(own)):
        before[k] += before[k - 1]
    for k in reversed(range(len(own) - 1)):
        own[k] += own[k + 1]
    return before, own


def _from_rows(cells: _Cells, rows: Tensor) -> Tensor:
    """Σ of squares of W'_k x and of delta_k x over few positions x; [2, K + 1, rows].

    Parameters
    ----------
    cells
        The weights.
    rows
        Centred inputs [positions, d].
    """
    total = torch.zeros(2, cells.size, cells.rows, dtype=torch.float64, device=rows.device)
    for block in cells.blocks(len(rows)):
        before, after = _running(cells.multiply(rows[block].mT))
        total[0] += before.square_().sum(dim=2)
        total[1, :-1] += after[1:].square_().sum(dim=2)
    return total


def _from_scatter(cells: _Cells, scatter: Tensor) -> Tensor:
    """The same from the scatter [d, d]; [2, K + 1, rows]."""
    gained = torch.zeros(cells.size, cells.rows, dtype=torch.float64, device=scatter.device)
    lost = torch.zeros_like(gained)
    for block in cells.blocks(scatter.shape[1]):
        own = cells.multiply(scatter[:, block])
        width = own.shape[2]
        place = cells.number[:, block] * width + torch.arange(width, device=own.device)
        own_here = own.take(place)
        before, after = _running(own)
        # 2 E_k − Y_k = E_k + E_{k−1}, and 2 F_k + Y_k with F_k + Y_k the suffix sum from k on.
        first = 2 * before.take(place) - own_here
        second = 2 * after.take(place) - own_here
        factor = cells.weight[:, block].double()
        gained += cells.add(factor * first, block)
        lost += cells.add(factor * second, block)
    return torch.stack([gained.cumsum(0), _after(lost)])


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
