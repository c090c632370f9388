"""Weights that are kept or removed together: a matrix cut into tiles.

Tiles at an edge may be smaller. So that the number of kept weights can be said before it is known
which tiles are best, tiles of every size are kept in proportion: as their number grows, the j-th of
the n tiles of a size comes at (j − 1/2) / n of the way. Counts that can be reached are the sums of
this sequence, and masks are nested.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Structure, Within
from sparsemend.solvers.ranking import descending_rank, rank_within_rows
from sparsemend.solvers.splitting import largest_entries


@dataclass(frozen=True)
class _Part:
    """The tiles of one size: a rectangle of the matrix, and how many they are along it.

    Attributes
    ----------
    rows, channels
        Where the rectangle is, all kernel positions of it.
    numbers
        Groups, and tiles along rows, channels and kernel positions.
    tile
        Rows, channels and kernel positions of a tile.
    """

    rows: slice
    channels: slice
    numbers: tuple[int, int, int, int]
    tile: tuple[int, int, int]

    @property
    def count(self) -> int:
        """Number of tiles."""
        groups, rows, channels, taps = self.numbers
        return groups * rows * channels * taps

    @property
    def size(self) -> int:
        """Weights of a tile."""
        rows, channels, taps = self.tile
        return rows * channels * taps

    def of(self, matrix: Tensor) -> Tensor:
        """View of a matrix [groups, rows, channels, taps], its tiles along dimensions 2, 4, 6."""
        (groups, high, wide, deep), (rows, channels, taps) = self.numbers, self.tile
        own = matrix[:, self.rows, self.channels]
        return own.reshape(groups, high, rows, wide, channels, deep, taps)

    def back(self, tiled: Tensor) -> Tensor:
        """Inverse of :meth:`of` for the rectangle, of a tensor that broadcasts to it."""
        (groups, high, wide, deep), (rows, channels, taps) = self.numbers, self.tile
        full = tiled.expand(groups, high, rows, wide, channels, deep, taps)
        return full.reshape(groups, high * rows, wide * channels, deep * taps)


class TiledStructure(Structure):
    """Tiles of some rows by some channels by some kernel positions.

    Parameters
    ----------
    shape
        Of the matrix.
    rows, channels, taps
        Of a tile; larger ones than the matrix are cut.
    """

    def __init__(self, shape: MatrixShape, rows: int, channels: int, taps: int) -> None:
        self._shape = shape
        high = list(_cuts(shape.rows, min(rows, shape.rows)))
        wide = list(_cuts(shape.channels, min(channels, shape.channels)))
        taps = min(taps, shape.taps)
        self._parts = [
            _Part(
                slice(top, top + down * tall),
                slice(left, left + across * broad),
                (shape.groups, down, across, shape.taps // taps),
                (tall, broad, taps),
            )
            for top, down, tall in high
            for left, across, broad in wide
        ]

    def around(self, count: int) -> tuple[int, int]:
        count = max(0, min(count, self._shape.size))
        if len(self._parts) == 1:
            size = self._parts[0].size
            return count // size * size, -(-count // size) * size
        place = int(np.searchsorted(self._sums, count))
        high = int(self._sums[place])
        return (high if high == count else int(self._sums[place - 1])), high

    def rank(self, score: Tensor, within: Within = "layer") -> Tensor:
        wide = torch.float32 if score.device.type == "mps" else torch.float64
        tiled = self._by_position(score.to(wide))
        found = torch.empty(tiled.shape, dtype=torch.int64, device=score.device)
        for part, starts in zip(self._parts, self._starts, strict=True):
            values = part.of(tiled)
            worth = (values * values.abs()).mean(dim=(2, 4, 6))
            # A tile that is all of its rows has no other to be compared with there.
            alone = part.count == part.numbers[0] * part.numbers[1]
            among = worth.flatten(2)
            place = (
                descending_rank(among) if within == "layer" or alone else rank_within_rows(among)
            )
            start = torch.from_numpy(starts).to(score.device)[place].reshape(worth.shape)
            inside = torch.arange(part.size, device=score.device).reshape(part.tile)
            rows, channels, taps = part.tile
            ranks = start[:, :, None, :, None, :, None] + inside.reshape(
                1, 1, rows, 1, channels, 1, taps
            )
            found[:, part.rows, part.channels] = part.back(ranks)
        return found.reshape(score.shape)

    def largest(self, values: Tensor, kept: int) -> Tensor:
        tiled = self._by_position(values)
        found = torch.empty(tiled.shape, dtype=torch.bool, device=values.device)
        for part, starts in zip(self._parts, self._starts, strict=True):
            worth = part.of(tiled).square().mean(dim=(2, 4, 6))
            count = int(np.searchsorted(starts + part.size, kept, side="right"))
            chosen = largest_entries(worth, count)
            found[:, part.rows, part.channels] = part.back(chosen[:, :, None, :, None, :, None])
        return found.reshape(values.shape)

    def holds(self, mask: Tensor) -> bool:
        tiled = self._by_position(mask)
        for part in self._parts:
            kept = part.of(tiled).sum(dim=(2, 4, 6))
            if not bool(((kept == 0) | (kept == part.size)).all()):
                return False
        return True

    def shared(self, magnitudes: Tensor) -> Tensor:
        wide = torch.float32 if magnitudes.device.type == "mps" else torch.float64
        tiled = self._by_position(magnitudes.to(wide))
        found = torch.empty_like(tiled)
        for part in self._parts:
            mean = part.of(tiled).square().mean(dim=(2, 4, 6), keepdim=True).sqrt()
            found[:, part.rows, part.channels] = part.back(mean)
        return found.reshape(magnitudes.shape).to(magnitudes.dtype)

    def _by_position(self, matrix: Tensor) -> Tensor:
        return matrix.reshape(self._shape)

    @cached_property
    def _sequence(self) -> tuple[np.ndarray, np.ndarray]:
        """Number of the part of every tile in the order in which they come, and its size."""
        way = [(np.arange(part.count) + 0.5) / part.count for part in self._parts]
        number = np.repeat(np.arange(len(self._parts)), [part.count for part in self._parts])
        order = number[np.lexsort((number, np.concatenate(way)))]
        return order, np.array([part.size for part in self._parts])[order]

    @cached_property
    def _sums(self) -> np.ndarray:
        """All counts that can be reached, ascending from 0."""
        return np.concatenate([[0], np.cumsum(self._sequence[1])])

    @cached_property
    def _starts(self) -> list[np.ndarray]:
        """For every part: the count before its j-th tile comes."""
        if len(self._parts) == 1:
            return [np.arange(self._parts[0].count) * self._parts[0].size]
        order, sizes = self._sequence
        before = np.cumsum(sizes) - sizes
        return [before[order == number] for number in range(len(self._parts))]


def _cuts(length: int, piece: int) -> Iterator[tuple[int, int, int]]:
    """Start, number and length of equal pieces: the whole ones, and what is left over."""
    number, rest = divmod(length, piece)
    yield 0, number, piece
    if rest:
        yield number * piece, 1, rest
