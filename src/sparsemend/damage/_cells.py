"""The weights of one group of a layer, sorted into cells: (row, number of the entering density).

A sparse product of all cells with a table of columns costs as many multiply-adds as one dense
product, however many densities there are, because every weight is in one cell.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

# Elements of the table that the weights of one product read: they stay in a core's second-level
# cache, from where every weight fetches one row of them.
_TABLE = 3 << 16
# Weights whose sums are formed at a time.
_BLOCK = 1 << 16


def table_width(rows: int) -> int:
    """How many columns a table of so many rows best has."""
    return max(16, min(128, _TABLE // rows // 16 * 16))


class Cells:
    """Weights [rows, m] of a matrix, sorted by cell.

    Parameters
    ----------
    weight
        [rows, m].
    entry
        Number from 0 to size - 1 of the mask with which each weight enters, [rows, m].
    size
        Number of masks.
    places
        Row of the table that each column reads, [m]; default 0 to m - 1.
    """

    def __init__(
        self, weight: Tensor, entry: Tensor, size: int, places: Tensor | None = None
    ) -> None:
        self.rows, self.size = len(weight), size
        # A stable sort of small integers is a radix sort in numpy.
        order = torch.from_numpy(np.argsort(entry.numpy(), axis=1, kind="stable"))
        values = weight.gather(1, order)
        ordered = entry.gather(1, order)
        self._values = (values if values.dtype == torch.float64 else values.float()).flatten()
        order = order.flatten()
        self._places = order.int() if places is None else places.int().index_select(0, order)
        limits = torch.arange(size, dtype=entry.dtype).repeat(self.rows, 1)
        starts = torch.searchsorted(ordered, limits)
        self._starts = (
            (starts + weight.shape[1] * torch.arange(self.rows).unsqueeze(1)).int().flatten()
        )

    def multiply(self, table: Tensor) -> Tensor:
        """Each cell's weights times a table [., width] → [rows, size, width]."""
        table = table.to(self._values.dtype).contiguous()
        found = F.embedding_bag(
            self._places, table, self._starts, mode="sum", per_sample_weights=self._values
        )
        return found.view(self.rows, self.size, -1)


def cell_numbers(entry: Tensor, size: int) -> Tensor:
    """Number of the cell of every weight, [rows, m], int64."""
    return entry + size * torch.arange(len(entry)).unsqueeze(1)


def cell_sums(weight: Tensor, entry: Tensor, size: int, values: Tensor) -> Tensor:
    """Σ w_j values_j over each cell, [rows, size], in float64.

    Parameters
    ----------
    weight, entry
        [rows, m].
    size
        Number of masks.
    values
        [m] or [rows, m].
    """
    found = []
    # A few rows at a time: what is computed on the way stays in the cache.
    for rows in torch.arange(len(weight)).split(max(1, _BLOCK // weight.shape[1])):
        part = slice(int(rows[0]), int(rows[-1]) + 1)
        product = weight[part].double() * (values if values.dim() == 1 else values[part])
        numbers = cell_numbers(entry[part], size).flatten()
        sums = torch.bincount(numbers, weights=product.flatten(), minlength=len(rows) * size)
        found.append(sums.view(-1, size))
    return torch.cat(found)
