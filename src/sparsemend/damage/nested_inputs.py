"""Squares of pruned outputs over inputs that are held, for nested masks.

With few positions it is cheaper to run the layer's disjoint groups of weights on its inputs than
to form their second moment. The inputs are laid out once, [*spatial, C, images], as the table of
a sparse product: the taps along the last axis that see data at an output position are then one
range of the table's rows, nothing is unfolded, and taps in the padding cost nothing.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import torch
from torch import Tensor

from sparsemend.calibration.moments import Held
from sparsemend.damage._cells import Cells, table_width
from sparsemend.layers import Axis


def squares_of_outputs(
    held: Held, group: int, weight: Tensor, entry: Tensor, mean: Tensor
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
    mean
        Mean output of every cell, [rows, K + 1], float64.

    Returns
    -------
    Tensor
        [2, K + 1, rows], float64: of the kept weights of every mask, then of the pruned ones.
    """
    size = mean.shape[1]
    total = torch.zeros(2, size, len(weight), dtype=torch.float64)
    pieces: dict[tuple[Axis, ...], _Pieces] = {}
    shift: Tensor | None = None
    for axes, x in held.as_convolutions(group):
        if shift is None:  # any constant near the mean of each channel
            shift = x.transpose(0, 1).flatten(1).mean(dim=1).float()
        if axes not in pieces:
            wide = weight.double() if x.dtype == torch.float64 else weight
            pieces[axes] = _Pieces(axes, wide, entry, size, shift)
        _add_squares(total, pieces[axes], axes, x - shift.view(-1, *[1] * len(axes)), mean)
    return total


class _Pieces:
    """The weights of a convolution cut by their taps, in cells.

    Each piece comes with its outputs for a constant input ``shift``, one value per channel.
    """

    def __init__(
        self, axes: tuple[Axis, ...], weight: Tensor, entry: Tensor, size: int, shift: Tensor
    ) -> None:
        kernel = [axis.kernel for axis in axes]
        channels = weight.shape[1] // math.prod(kernel)
        self._size = size
        self._weight = weight.view(len(weight), channels, *kernel)
        self._entry = entry.view(self._weight.shape)
        self._shift = shift
        self._step = axes[-1].dilation * channels
        self._found: dict[tuple[tuple[int, ...], range], tuple[Cells, Tensor]] = {}

    def __call__(self, leading: tuple[int, ...], last: range) -> tuple[Cells, Tensor]:
        """The weights at some taps; places count from the row of the first one's first channel."""
        key = (leading, last)
        if key not in self._found:
            index: Any = (slice(None), slice(None), *leading, slice(last.start, last.stop))
            taps = self._step * torch.arange(len(last))
            places = torch.arange(len(self._shift)).unsqueeze(1) + taps
            cells = Cells(
                self._weight[index].flatten(1),
                self._entry[index].flatten(1),
                self._size,
                places.flatten(),
            )
            rows = self._shift.repeat(int(places.max()) // len(self._shift) + 1)
            self._found[key] = cells, cells.multiply(rows.unsqueeze(1))
        return self._found[key]


def _add_squares(
    total: Tensor, pieces: _Pieces, axes: tuple[Axis, ...], x: Tensor, mean: Tensor
) -> None:
    """Add the squares at all positions of x, [N, C, *spatial], whose channels are shifted."""
    channels = x.shape[1]
    width = table_width(channels * axes[-1].kernel)
    for images in x.split(width):
        table = _as_table(images)
        for position in itertools.product(*(range(axis.positions) for axis in axes)):
            *leading, last = (a.taps_with_data(p) for a, p in zip(axes, position, strict=True))
            seen = []
            for taps in itertools.product(*leading) if last else ():
                row = 0
                for axis, p, k in zip(axes, position, (*taps, last.start), strict=True):
                    row = row * axis.size + axis.index(p, k)
                seen.append((*pieces(taps, last), table[row * channels :]))
            # Taps that see data add what was subtracted from it; the mean is over all positions.
            offset = sum((constant for _, constant, _ in seen), -mean.unsqueeze(2))
            outputs = offset.to(x.dtype).expand(-1, -1, len(images))
            for cells, _, rows in seen:
                outputs = torch.add(outputs, product := cells.multiply(rows), out=product)
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
