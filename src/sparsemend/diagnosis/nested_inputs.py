"""Squares of pruned outputs over inputs that are held, for nested masks.

With few positions it is cheaper to run the layer's disjoint groups of weights on its inputs than
to form their second moment. The inputs are laid out once, [*spatial, C, images], as the table of
a sparse product: the taps along the last axis that see data at an output position are then one
range of the table's rows, nothing is unfolded, and taps in the padding cost nothing.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from sparsemend.calibration import HeldInputs
from sparsemend.calibration.taps import Axis, all_taps
from sparsemend.diagnosis._cells import Cells, cell_numbers, sum_by_cell

# Elements of the table that the weights of one product read: they stay in the second-level cache.
_TABLE = 3 << 15


def squares_of_outputs(
    held: HeldInputs, group: int, weight: Tensor, entry: Tensor, size: int, mean: Tensor
) -> Tensor:
    """Σ over positions of the squared centred outputs of kept and of pruned weights.

    Parameters
    ----------
    held
        The layer's inputs.
    group
        Number of the group of the layer.
    weight, entry
        [rows, d]: the group's weights, and numbers of the masks with which they enter.
    size
        K + 1, one more than there are masks.
    mean
        Mean output of every cell, [rows · size], float64.

    Returns
    -------
    Tensor
        [2, K + 1, rows], float64: of the kept weights of every mask, then of the pruned ones.
    """
    total = torch.zeros(2, size, len(weight), dtype=torch.float64)
    pieces: dict[tuple[Axis, ...], _Pieces] = {}
    for axes, x in held.as_convolutions(group):
        if axes not in pieces:
            pieces[axes] = _Pieces(axes, weight, entry, size)
        _add_squares(total, pieces[axes], axes, x, mean)
    return total


class _Pieces:
    """The weights of a convolution cut by their taps, in cells."""

    def __init__(self, axes: tuple[Axis, ...], weight: Tensor, entry: Tensor, size: int) -> None:
        kernel = [axis.kernel for axis in axes]
        channels = weight.shape[1] // math.prod(kernel)
        self.shape = (len(weight), size)
        self._weight = weight.view(len(weight), channels, *kernel)
        self._entry = entry.view(self._weight.shape)
        self._channels = channels
        self._step = axes[-1].dilation * channels
        self._taps = all_taps(axes)
        self._cells: dict[tuple[tuple[int, ...], range], Cells] = {}

    def cells(self, leading: tuple[int, ...], last: range) -> Cells:
        """Cells of all channels' weights at some taps; places count from the first tap's row."""
        key = (leading, last)
        if key not in self._cells:
            index = (slice(None), slice(None), *leading, slice(last.start, last.stop))
            places = torch.arange(self._channels).unsqueeze(1) + self._step * torch.arange(
                len(last)
            )
            self._cells[key] = Cells(
                self._weight[index].flatten(1),
                self._entry[index].flatten(1),
                self.shape[1],
                places.flatten(),
            )
        return self._cells[key]

    def sums(self, values: Tensor) -> Tensor:
        """Σ_j w_j values_c(j) over each tap's part of each cell, [*kernel, cells]."""
        rows, size = self.shape
        kernel = self._weight.shape[2:]
        taps = torch.arange(len(self._taps)).view(kernel)
        numbers = cell_numbers(self._entry.flatten(1), size).view(self._entry.shape)
        numbers = numbers + rows * size * taps
        values = values.double().view(-1, *[1] * len(kernel))
        found = sum_by_cell(numbers, self._weight * values, rows * size * len(self._taps))
        return found.view(*kernel, rows * size)


def _add_squares(
    total: Tensor, pieces: _Pieces, axes: tuple[Axis, ...], x: Tensor, mean: Tensor
) -> None:
    """Add the squares at all positions of x, [N, C, *spatial]."""
    channels = x.shape[1]
    shift = x.transpose(0, 1).flatten(1).mean(dim=1, dtype=torch.float64)
    constant = pieces.sums(shift)
    width = max(16, _TABLE // (channels * axes[-1].kernel) // 16 * 16)
    for images in x.split(width):
        table = _as_table(images - shift.to(x.dtype).view(-1, *[1] * len(axes)))
        for position in itertools.product(*(range(axis.positions) for axis in axes)):
            seen = [axis.taps_with_data(p) for axis, p in zip(axes, position, strict=True)]
            # Taps that see data add what was subtracted from it; the mean is over all positions.
            inside = tuple(slice(taps.start, taps.stop) for taps in seen)
            offset = constant[inside].flatten(0, -2).sum(dim=0) - mean
            outputs = offset.to(x.dtype).view(*pieces.shape, 1).repeat(1, 1, len(images))
            if seen[-1]:
                for leading in itertools.product(*seen[:-1]):
                    row = 0
                    for axis, p, k in zip(axes, position, (*leading, seen[-1].start), strict=True):
                        row = row * axis.size + axis.index(p, k)
                    outputs += pieces.cells(leading, seen[-1]).multiply(table[row * channels :])
            total += _running_norms(outputs).double().square()


def _as_table(x: Tensor) -> Tensor:
    """[N, C, *spatial] → [*spatial · C, N]."""
    count, channels = x.shape[:2]
    turned = x.new_empty(x[0].numel(), count)
    turned.copy_(x.reshape(count, -1).t())  # of a matrix, which is blocked for the cache
    return turned.view(channels, -1, count).transpose(0, 1).reshape(-1, count)


def _running_norms(steps: Tensor) -> Tensor:
    """Norms over the last dimension of the prefix and suffix sums over dimension 1.

    [rows, K + 1, width] → [2, K + 1, rows]: of Σ of steps 0 to k, and of the steps after k.
    """
    rows, size, _ = steps.shape
    norms = steps.new_zeros(2, size, rows)
    before, after = steps[:, 0].clone(), torch.zeros_like(steps[:, 0])
    torch.linalg.vector_norm(before, dim=1, out=norms[0, 0])
    for k in range(1, size):
        before += steps[:, k]
        torch.linalg.vector_norm(before, dim=1, out=norms[0, k])
        after += steps[:, size - k]
        torch.linalg.vector_norm(after, dim=1, out=norms[1, size - k - 1])
    return norms
