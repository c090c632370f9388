"""Second moments of a convolution's patches without unfolding them.

The moment of k taps and C channels consists of k × k blocks of C × C. Borders aside, a block
depends only on the offset between its two taps, so that a 3 × 3 kernel has 13 different blocks
and not 45. Inputs are laid out with positions outermost, [*spatial, N, C]: shifting by an offset
is then a change of the starting address, and a block is a sum of matrix products of contiguous
views. Ranges that differ at the borders are cut into disjoint boxes, and every pair of taps adds
up its own boxes: nothing is computed twice and nothing cancels. On large maps it is cheaper to
take the sums over the whole map (:mod:`.whole_map`) and to subtract the few lines at the borders
that a pair of taps does not see.

A constant c per channel is subtracted from the data first. Zero padding is left out of the
products: a patch is D + c·m, where D is the shifted data (zero in the padding) and m says which
taps read data, and what m contributes has low rank and follows from sums of D over boxes.
"""

from __future__ import annotations

import copy
import itertools
import math

import torch
from torch import Tensor, nn

from sparsemend.calibration.taps import (
    Box,
    Index,
    all_taps,
    families,
    overlap,
    phase,
)
from sparsemend.calibration.whole_map import WholeMapProducts
from sparsemend.layers import Axis, kind_of

# Elements of the channel-last copy of a chunk: 4 MiB in float32, and what is computed from them,
# stay in the last-level cache.
_CHUNK_ELEMENTS = 1 << 20
# On an accelerator, which wants few and large calls, 64 MiB.
_ACCELERATED_ELEMENTS = 1 << 24
# Inputs whose mean is subtracted.
_SAMPLE = 4
# Below so many rows, the lines of a box are first joined into one matrix.
_SHORT = 512
# Up to so many channels, the products of several lines are one batched call.
NARROW = 128


class OffsetBlocks:
    """Accumulates the box products of a convolution's inputs, all of one size.

    Parameters
    ----------
    module
        Of a kind with offset blocks, of one group.
    example
        Some of its inputs [N, C, *spatial]; their channel means become the constant c.
    accumulator
        Type of the sums; default that of the inputs.
    whole
        Whether to start from sums over whole maps; only where every pair of taps sees most.
    """

    def __init__(
        self,
        module: nn.Module,
        example: Tensor,
        accumulator: torch.dtype | None = None,
        *,
        whole: bool = False,
    ) -> None:
        self._module = module
        self.shape = tuple(example.shape[1:])
        self._axes, example = self._prepare(example[:_SAMPLE])
        wide = torch.float32 if example.device.type == "mps" else torch.float64
        # In the wide type, so that a constant channel leaves exactly zero.
        channel_first = example.transpose(0, 1).flatten(1)
        self._shift = channel_first.mean(dim=1, dtype=wide).to(example.dtype)
        self._families = families(self._axes, whole)
        self._taps = all_taps(self._axes)
        self._inputs = 0
        kind = accumulator or example.dtype
        channels = example.shape[1]
        self._products = [
            torch.zeros(len(f.boxes), channels, channels, dtype=kind, device=example.device)
            for f in self._families
        ]
        self._maps: WholeMapProducts | None = None
        if whole:
            offsets = tuple(family.offset for family in self._families)
            sizes = tuple(example.shape[2:])
            # Products of so many frequencies take no more memory than the moments will.
            patience = len(self._taps) ** 2
            self._maps = WholeMapProducts(sizes, offsets, channels, example, kind, patience)
        self._sums: dict[Index, Tensor] = {}
        for tap in self._taps:
            r = phase(self._axes, tap)
            size = [-(-(a.size - p) // a.stride) for a, p in zip(self._axes, r, strict=True)]
            self._sums[r] = torch.zeros(*size, channels, dtype=wide, device=example.device)

    def _prepare(self, x: Tensor) -> tuple[tuple[Axis, ...], Tensor]:
        x = x if x.dtype == torch.float64 else x.float()
        return kind_of(self._module).as_convolution(self._module, x)

    def add(self, x: Tensor) -> None:
        """Add inputs [N, C, *spatial] of the same size as the example."""
        self._inputs += len(x)
        for chunk in x.split(images_per_chunk(math.prod(self.shape), x.device)):
            self._add_chunk(self._prepare(chunk)[1])
        if self._maps is not None:
            self._maps.end_batch()

    def _add_chunk(self, x: Tensor) -> None:
        planes = {}
        for r, total in self._sums.items():
            steps = tuple(slice(p, None, a.stride) for p, a in zip(r, self._axes, strict=True))
            plane = _positions_outermost(x[(slice(None), slice(None), *steps)])
            plane -= self._shift
            total += plane.sum(dim=-2)
            planes[r] = plane
            if self._maps is not None:
                self._maps.add(plane)
        for family, products in zip(self._families, self._products, strict=True):
            first, second = (planes[r] for r in family.phases)
            for box, product in zip(family.boxes, products, strict=True):
                moved = tuple((a + o, b + o) for (a, b), o in zip(box, family.offset, strict=True))
                _add_product(product, first[_slices(box)], second[_slices(moved)])

    def twin(self) -> OffsetBlocks:
        """An empty accumulator like this one, to add to on another thread."""
        other = copy.copy(self)
        other._inputs = 0
        other._products = [torch.zeros_like(product) for product in self._products]
        other._sums = {r: torch.zeros_like(total) for r, total in self._sums.items()}
        other._maps = None if self._maps is None else self._maps.twin()
        return other

    def absorb(self, other: OffsetBlocks) -> None:
        """Add what a twin has seen."""
        self._inputs += other._inputs
        for mine, theirs in zip(self._products, other._products, strict=True):
            mine += theirs
        for r, total in self._sums.items():
            total += other._sums[r]
        if self._maps is not None and other._maps is not None:
            self._maps.absorb(other._maps)

    def moments(self) -> tuple[int, Tensor, Tensor]:
        """Count, mean [1, d] and scatter [1, d, d] of all that was added."""
        axes, taps, shift = self._axes, self._taps, self._shift
        channels, kernel = len(shift), len(taps)
        positions = math.prod(axis.positions for axis in axes)
        count = self._inputs * positions
        products = self._products[0]
        if self._maps is not None:
            self._maps.flush()
        scatter = products.new_empty(channels, kernel, channels, kernel)
        blocks: dict[tuple[int, int], Tensor] = {}
        for number, (family, product) in enumerate(
            zip(self._families, self._products, strict=True)
        ):
            for k1, k2, boxes in family.pairs:
                block = product[list(boxes)].sum(dim=0)
                if self._maps is not None:
                    block = self._maps.products[number] - block
                blocks[k1, k2] = block
        for k1 in range(kernel):  # a panel of rows at a time, which is contiguous
            row = [blocks[k1, k] if (k1, k) in blocks else blocks[k, k1].mT for k in range(kernel)]
            scatter[:, k1] = torch.stack(row).permute(1, 2, 0)
        matrix = scatter.view(channels * kernel, channels * kernel)
        sums, there = self._border_sums()
        inside = there.diagonal()  # [k]
        data = sums.diagonal(dim1=1, dim2=2)  # [C, k]
        constant = self._shift.to(sums.dtype).unsqueeze(1)
        mean = ((data + constant * inside) / max(1, count)).reshape(1, -1)
        if not count:
            return 0, mean, matrix.zero_().unsqueeze(0)
        # Σ D Dᵀ becomes centred, then gains Cov[D, m] cᵀ + Cov[m, m] c cᵀ / 2 and its transpose.
        left, right = [data.reshape(-1, 1) / -count], [data.reshape(-1, 1)]
        if (inside < count).any():
            cross = sums - data.unsqueeze(2) * (inside / count)
            both = there - torch.outer(inside, inside) / count
            cross += constant.unsqueeze(2) * both / 2
            tap = torch.eye(kernel, dtype=sums.dtype, device=sums.device)
            pair = [cross.flatten(0, 1), (constant.unsqueeze(2) * tap).flatten(0, 1)]
            left, right = left + pair, right + pair[::-1]
        matrix.addmm_(torch.cat(left, 1).to(matrix), torch.cat(right, 1).to(matrix).mT)
        return count, mean, matrix.unsqueeze(0)

    def _border_sums(self) -> tuple[Tensor, Tensor]:
        """Σ of tap k1's data over outputs where k2 reads data too, [C, k, k]; their number."""
        kernel = len(self._taps)
        example = next(iter(self._sums.values()))
        sums = example.new_zeros(example.shape[-1], kernel, kernel)
        there = torch.zeros(kernel, kernel, dtype=example.dtype)
        for (i, k1), (j, k2) in itertools.product(enumerate(self._taps), repeat=2):
            box = overlap(self._axes, k1, k2)
            part = self._sums[phase(self._axes, k1)][_slices(box)]
            sums[:, i, j] = part.flatten(0, -2).sum(dim=0)
            there[i, j] = self._inputs * math.prod(stop - start for start, stop in box)
        return sums, there.to(example.device)


def images_per_chunk(elements: int, device: torch.device) -> int:
    """How many inputs of so many elements are laid out at a time."""
    chunk = _CHUNK_ELEMENTS if device.type == "cpu" else _ACCELERATED_ELEMENTS
    return max(1, chunk // max(1, elements))


def _slices(box: Box) -> tuple[slice, ...]:
    return tuple(slice(start, stop) for start, stop in box)


def _positions_outermost(x: Tensor) -> Tensor:
    """[N, C, *spatial] → a new contiguous [*spatial, N, C]."""
    count, channels, *spatial = x.shape
    plane = x.new_empty(*spatial, count, channels)
    size = math.prod(spatial)
    if size > channels:  # as one transposition of a large matrix, which is blocked for the cache
        plane.view(size, -1).copy_(x.reshape(-1, size).t())
    else:
        plane.view(size, count, channels).copy_(x.flatten(2).permute(2, 0, 1))
    return plane


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Add Σ over all but the last dimension of a bᵀ; a and b are [*box, N, C] views."""
    channels = a.shape[-1]
    a, b = a.flatten(-3, -2), b.flatten(-3, -2)
    if a.dim() == 2:
        a, b = a.unsqueeze(0), b.unsqueeze(0)
    if a.shape[-2] <= _SHORT:
        a, b = a.reshape(1, -1, channels), b.reshape(1, -1, channels)
    for outer in itertools.product(*(range(n) for n in a.shape[:-3])):
        first, second = a[outer], b[outer]
        if first.shape[0] > 1 and channels <= NARROW:
            total += torch.bmm(first.mT, second).sum(dim=0)
        elif total.dtype == first.dtype:
            for one, other in zip(first, second, strict=True):
                total.addmm_(one.mT, other)
        else:
            for one, other in zip(first, second, strict=True):
                total += one.mT @ other
