"""The weights of one group of a layer, sorted into cells: (row, number of the entering density).

A sparse product of all cells with a table of columns costs as many multiply-adds as one dense
product, however many densities there are, because every weight is in one cell.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F


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
        self._values = (values if values.dtype == torch.float64 else values.float()).flatten()
        self._places = (order if places is None else places.take(order)).int().flatten()
        counts = torch.bincount(cell_numbers(entry, size).flatten(), minlength=self.rows * size)
        self._starts = (counts.cumsum(0) - counts).int()

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


def sum_by_cell(numbers: Tensor, values: Tensor, cells: int) -> Tensor:
    """Sum values over the weights of each of so many cells, in float64."""
    return torch.bincount(
        numbers.flatten(), weights=values.double().flatten(), minlength=cells
    )
