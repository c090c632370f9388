"""Kept weights as the kernels read them: value and place of the input, by output channel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsemend.errors import SparsemendError
from sparsemend.graphs.operations import Convolution, Linear
from sparsemend.runtime.geometry import Geometry
from sparsemend.runtime.steps import Step

NONZERO = np.dtype([("weight", "<f4"), ("offset", "<i4")])
"""``struct nonzero``."""

_ALIGNMENT = 64


class Weights:
    """Arrays one behind the other."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self.size = 0

    def add(self, array: NDArray[np.generic], *, shared: bool = False) -> int:
        """Append an array and return its byte offset; a shared one is stored once."""
        content = array.tobytes()
        if shared and content in self._known:
            return self._known[content]
        place = self.size
        padded = content + b"\0" * (-len(content) % _ALIGNMENT)
        self._parts.append(padded)
        self.size += len(padded)
        if shared:
            self._known[content] = place
        return place

    def array(self) -> NDArray[np.uint8]:
        """All of them, aligned to cache lines; what vectors read beyond the end is zero."""
        room = np.zeros(self.size + 3 * _ALIGNMENT, np.uint8)
        start = -room.ctypes.data % _ALIGNMENT
        aligned = room[start : start + self.size + _ALIGNMENT]
        aligned[: self.size] = np.frombuffer(b"".join(self._parts), np.uint8)
        return aligned


@dataclass(frozen=True)
class Kept:
    """The kept weights of a layer and where each reads.

    Attributes
    ----------
    row, channel
        Output and input channel of each.
    nonzeros
        As the kernels take them.
    bias
        [rows], float32.
    channels
        Number of input channels.
    """

    row: NDArray[np.int64]
    channel: NDArray[np.int64]
    nonzeros: NDArray[np.void]
    bias: NDArray[np.float32]
    channels: int

    def store(self, step: Step, blocks: int, weights: Weights) -> None:
        """Write them, in blocks of input channels, and tell the step where they are."""
        rows = len(self.bias)
        block = self.channel * blocks // max(self.channels, 1)
        group = block * rows + self.row
        order = np.argsort(group, kind="stable")
        ends = np.cumsum(np.bincount(group, minlength=blocks * rows))
        starts = np.concatenate([[0], ends]).astype(np.int32)
        begins = np.stack([starts[b * rows : (b + 1) * rows + 1] for b in range(blocks)])
        step.blocks = blocks
        step.nonzeros = weights.add(self.nonzeros[order])
        step.rows = weights.add(begins)
        step.bias = weights.add(self.bias)


def kept(layer: Convolution | Linear, source: Geometry, *, phases: bool, point: bool) -> Kept:
    """The kept weights of a layer.

    Parameters
    ----------
    layer
        A linear layer reads values of one position.
    source
        Layout of what is read.
    phases
        Whether that is the input split into phases, so that the stride is 1.
    point
        Whether there is one output position: weights that only see padding are left out.

    Raises
    ------
    SparsemendError
        If an offset does not fit into 32 bits.
    """
    weight = layer.weight.numpy()
    if isinstance(layer, Linear):
        row, channel = np.nonzero(weight)
        values, offset = weight[row, channel], channel * source.plane
        channels = weight.shape[1]
    else:
        per_group = weight.shape[1]
        channels = per_group * layer.groups
        row, inner, i, j = np.nonzero(weight)
        values = weight[row, inner, i, j]
        channel = row // (weight.shape[0] // layer.groups) * per_group + inner
        dy = i * layer.dilation[0] - layer.padding[0]
        dx = j * layer.dilation[1] - layer.padding[1]
        if phases:
            sy, sx = layer.stride
            plane = channel * sy * sx + dy % sy * sx + dx % sx
            offset = plane * source.plane + dy // sy * source.pitch + dx // sx
        else:
            offset = channel * source.plane + (dy * source.pitch + dx) * source.lanes
        if point:
            inside = (dy >= 0) & (dy < source.height) & (dx >= 0) & (dx < source.width)
            row, channel, values, offset = (x[inside] for x in (row, channel, values, offset))
    if len(offset) and 4 * int(np.abs(offset).max()) > np.iinfo(np.int32).max:
        raise SparsemendError(
            "a layer's input is too large for the sparse runtime", f"{4 * source.image:,} bytes"
        )
    nonzeros = np.empty(len(values), NONZERO)
    nonzeros["weight"], nonzeros["offset"] = values, offset * 4
    bias = layer.bias.numpy().astype(np.float32)
    return Kept(row, channel, nonzeros, bias, channels)


def mask(geometry: Geometry, vector: int) -> NDArray[np.int32] | None:
    """Layout planes: all ones for lanes in the image; None where vectors are full of them."""
    positions = np.arange(-(-geometry.height * geometry.pitch // vector) * vector)
    row, column = np.divmod(positions, geometry.pitch)
    inside = (row < geometry.height) & (column < geometry.width)
    return None if inside.all() else -inside.astype(np.int32)


def margin_runs(geometry: Geometry) -> NDArray[np.int32]:
    """Layout blocks: the runs of vectors that fill the margins of a block [runs, 3 + lanes].

    Each is where it is, where its values are, how many vectors, and which lanes get values, as
    ``native/steps.h`` says. What is in a margin of one block lies in another one, a few blocks down
    and to the right, and so as many lanes apart.
    """
    lanes = np.arange(geometry.lanes)
    lane_y, lane_x = np.divmod(lanes, geometry.grid[1])
    (top, left), (bottom, right) = geometry.margin
    starts = [*range(-left, 0), 0, *range(geometry.width, geometry.width + right)]
    runs = []
    for y in range(-top, geometry.height + bottom):
        down, row = divmod(y, geometry.height)
        for x in starts:
            across, column = divmod(x, geometry.width)
            if down == across == 0:
                continue
            to = (y * geometry.pitch + x) * geometry.lanes
            source = (row * geometry.pitch + column) * geometry.lanes
            vectors = geometry.width if across == 0 else 1
            inside = (lane_y + down >= 0) & (lane_y + down < geometry.grid[0])
            inside &= (lane_x + across >= 0) & (lane_x + across < geometry.grid[1])
            if inside.any():
                source += down * geometry.grid[1] + across
            runs.append([to, source, vectors, *-inside.astype(int)])
    return np.array(runs, "<i4")
