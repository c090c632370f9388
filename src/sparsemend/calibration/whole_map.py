"""Sums of x(q) x(q + offset)ᵀ over all of a map at once, in the frequency domain.

With zeros appended so that no offset wraps around, the sums for all offsets are the inverse
Fourier transform of Σ X(f) X(f)ᴴ over images: one complex C × C product for every frequency
instead of one real product for every position and offset. Two real products do for each: with
X = A + iB, the matrix (A + B) Aᵀ + (B − A) Bᵀ has the real part of X Xᴴ as its symmetric and the
imaginary part as its antisymmetric half. Frequencies of opposite sign say the same of real data,
so that one of each pair is enough.

The transforms are matrix products too. They write frequencies outermost, [f, N, C], which is the
layout that the products want.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from sparsemend.calibration.taps import Index
from sparsemend.layers import Axis


@dataclass(frozen=True)
class Frequencies:
    """One of every pair of opposite frequencies of maps of one size, and their transforms.

    Attributes
    ----------
    last
        Transform along the last axis, [V, 2, size]: cosines, then negative sines.
    leading
        For each of the V frequencies of the last axis, the transform over all other axes of its
        real and imaginary part, [2 U, 2 L]: rows are real and imaginary in turn, L leading
        positions.
    back
        Inverse transforms: for each of the V, [2, offsets, U], what the symmetric and what the
        antisymmetric half count for at each offset.
    """

    last: Tensor
    leading: tuple[Tensor, ...]
    back: tuple[Tensor, ...]

    @property
    def count(self) -> int:
        """Number of frequencies."""
        return sum(part.shape[2] for part in self.back)


@lru_cache(maxsize=64)
def frequencies_of(sizes: Index, offsets: tuple[Index, ...]) -> Frequencies:
    """Frequencies of maps of a size that tell the sums at some offsets apart; in float64."""
    lengths = [size + max(abs(offset[dim]) for offset in offsets) for dim, size in enumerate(sizes)]
    # Positions count from the middle of the map, which keeps the sums of rounding errors small.
    places = [torch.arange(size, dtype=torch.float64) - (size - 1) / 2 for size in sizes]
    turns = [
        2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in lengths
    ]  # angle of one step, for every frequency
    half = turns[-1][: lengths[-1] // 2 + 1]
    angle = torch.outer(half, places[-1])
    last = torch.stack([angle.cos(), -angle.sin()], dim=1)

    angles = torch.zeros(1, 1, dtype=torch.float64)
    for turn, place in zip(turns[:-1], places[:-1], strict=True):
        step = torch.outer(turn, place)
        angles = angles[:, None, :, None] + step[None, :, None, :]
        angles = angles.flatten(2).flatten(0, 1)
    cos, sin = angles.cos(), angles.sin()
    full = torch.stack([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], dim=1)

    grid = torch.cartesian_prod(*turns[:-1]) if len(turns) > 1 else torch.zeros(1, 0)
    grid = grid.reshape(len(full), -1).double()
    numbers = torch.arange(len(full)).reshape([*lengths[:-1]] or [1])
    opposite = numbers
    for dim in range(len(lengths) - 1):
        opposite = opposite.flip(dim).roll(1, dim)
    own, other = numbers.flatten(), opposite.flatten()
    shifts = torch.tensor(offsets, dtype=torch.float64)
    all_leading = full.flatten(0, 1)
    leading, back = [], []
    for v, turn in enumerate(half):
        # Along the last axis, frequency 0 and the highest of an even length are their own
        # opposites: only there do the leading frequencies come in opposite pairs.
        alone = v == 0 or 2 * v == lengths[-1]
        chosen = own[own <= other] if alone else own
        weight = torch.where(own == other, 1.0, 2.0)[chosen] if alone else 2.0
        phase = shifts @ torch.cat([grid[chosen], turn.expand(len(chosen), 1)], dim=1).T
        leading.append(full[chosen].flatten(0, 1) if alone else all_leading)
        back.append(torch.stack([phase.cos(), phase.sin()]) * weight / math.prod(lengths))
    return Frequencies(last, tuple(leading), tuple(back))


def frequency_count(axes: tuple[Axis, ...], offsets: tuple[Index, ...]) -> int:
    """Number of frequencies for maps of this size; without computing them."""
    lengths = [
        axis.size + max(abs(offset[dim]) for offset in offsets) for dim, axis in enumerate(axes)
    ]
    alone = math.prod(1 if n % 2 else 2 for n in lengths)
    return (math.prod(lengths) + alone) // 2


class WholeMapProducts:
    """Accumulates Σ_q x(q) x(q + offset)ᵀ over whole maps.

    Parameters
    ----------
    sizes
        Of the maps.
    offsets
        Offsets, one number per dimension each.
    example
        A tensor of the maps' type and device.
    channels
        C.
    accumulator
        Type of the sums.
    patience
        Up to so many frequencies, their products wait for the end instead of being transformed
        back after every batch.
    """

    def __init__(
        self,
        sizes: Index,
        offsets: tuple[Index, ...],
        channels: int,
        example: Tensor,
        accumulator: torch.dtype,
        patience: int,
    ) -> None:
        exact = frequencies_of(sizes, offsets)
        self._last = exact.last.to(example)
        cast = {id(matrix): matrix.to(example) for matrix in exact.leading}
        self._leading = [cast[id(matrix)] for matrix in exact.leading]
        self._back = [matrix.flatten(0, 1).to(example) for matrix in exact.back]
        self.products = torch.zeros(
            len(offsets), channels, channels, dtype=accumulator, device=example.device
        )
        self._spectrum: list[Tensor] | None = None
        self._waits = accumulator == example.dtype and exact.count <= patience

    def add(self, planes: Tensor) -> None:
        """Add maps [*spatial, N, C]."""
        *spatial, count, channels = planes.shape
        size, width = spatial[-1], count * channels
        lines = planes.reshape(-1, size, width)
        kinds = self._last.flatten(0, 1)  # [2 V, size]
        turned = planes.new_empty(len(kinds), len(lines), width)
        for number, line in enumerate(lines):
            torch.mm(kinds, line, out=turned[:, number])
        turned = turned.view(len(self._last), -1, width)
        new = self._spectrum is None
        if self._spectrum is None:
            self._spectrum = [
                planes.new_empty(len(matrix) // 2, channels, channels) for matrix in self._leading
            ]
        for matrix, part, total in zip(self._leading, turned, self._spectrum, strict=True):
            parts = (matrix @ part).view(-1, 2, count, channels)
            real, imaginary = parts.unbind(1)
            mixed = torch.empty_like(parts)
            torch.add(real, imaginary, out=mixed[:, 0])
            torch.sub(imaginary, real, out=mixed[:, 1])
            both = (mixed.flatten(1, 2).mT, parts.flatten(1, 2))
            if new:
                torch.bmm(*both, out=total)
            else:
                total.baddbmm_(*both)

    def end_batch(self) -> None:
        """Bound the memory and the rounding errors: transform back, if that is due."""
        if not self._waits:
            self.flush()

    def twin(self) -> WholeMapProducts:
        """An empty accumulator like this one."""
        other = copy.copy(self)
        other.products = torch.zeros_like(self.products)
        other._spectrum = None
        return other

    def absorb(self, other: WholeMapProducts) -> None:
        """Add what a twin has seen."""
        other.flush()
        self.flush()
        self.products += other.products

    def flush(self) -> None:
        """Transform back what was added; to be called before ``products`` are read."""
        if self._spectrum is None:
            return
        found = self._spectrum[0].new_zeros(2 * len(self.products), self.products[0].numel())
        for matrix, part in zip(self._back, self._spectrum, strict=True):
            found.addmm_(matrix, part.flatten(1))
        self._spectrum = None
        even, odd = found.view(2, *self.products.shape)
        self.products += ((even + odd) + (even - odd).mT) / 2
