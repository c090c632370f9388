"""n of every m consecutive input channels, as sparse matrix units of accelerators compute with.

The same n in all layers, or one for each layer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar, Self

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern, Structure, Within
from sparsemend.solvers.ranking import descending_rank
from sparsemend.solvers.splitting import largest_entries


class GroupStructure(Structure):
    """Groups of m weights: consecutive input channels at one position of the kernel.

    Parameters
    ----------
    shape
        Of the matrix.
    m
        Weights of a group.
    """

    def __init__(self, shape: MatrixShape, m: int) -> None:
        self._shape, self._m = shape, m

    def rank(self, score: Tensor, within: Within = "layer") -> Tensor:  # noqa: ARG002
        """What is better in its group comes first; every row then keeps the same number anyway."""
        place = self._classes(score)
        return descending_rank((descending_rank(score) + place * score.numel()) * -1)

    def _classes(self, score: Tensor) -> Tensor:
        """What is to come first, by its number, whatever it scores beside other groups."""
        return self._places(score)

    def _grouped(self, matrix: Tensor) -> Tensor:
        """[groups, rows, groups of channels, m, taps]."""
        groups, rows, channels, taps = self._shape
        return matrix.reshape(groups, rows, channels // self._m, self._m, taps)

    def _places(self, score: Tensor) -> Tensor:
        """How many of its group are better than each weight; of equal ones the first is."""
        parts = self._grouped(score).movedim(3, 0).contiguous()
        # Comparing all pairs is faster than sorting.
        before = torch.zeros(parts.shape, dtype=torch.int16, device=parts.device)
        for j in range(1, self._m):
            wins = parts[:j] >= parts[j]
            before[j] += wins.sum(dim=0, dtype=torch.int16)
            before[:j] += ~wins
        return before.movedim(0, 3).reshape(score.shape)

    def _filled(self, size: Tensor, n: int, kept: int) -> Tensor:
        """Mask of the n largest of every group and, up to the count, the largest others."""
        best = self._places(size) < n
        if kept <= self._shape.size // self._m * n:
            return best
        return largest_entries(size.masked_fill(best, torch.inf), kept)


class NOfMStructure(GroupStructure):
    """n of every group.

    Parameters
    ----------
    shape
        Of the matrix.
    n, m
        How many of how many are kept.
    """

    def __init__(self, shape: MatrixShape, n: int, m: int) -> None:
        super().__init__(shape, m)
        self._n, self._count = n, shape.size // m * n

    def around(self, count: int) -> tuple[int, int]:  # noqa: ARG002
        return self._count, self._count

    def _classes(self, score: Tensor) -> Tensor:
        return (self._places(score) >= self._n).long()

    def largest(self, values: Tensor, kept: int) -> Tensor:
        return self._filled(values.abs(), self._n, kept)

    def holds(self, mask: Tensor) -> bool:
        return bool((self._grouped(mask).sum(dim=3) == self._n).all())


class AnyOfMStructure(GroupStructure):
    """The same number of every group of a layer, whichever it is."""

    def around(self, count: int) -> tuple[int, int]:
        step = self._shape.size // self._m
        count = max(0, min(count, self._shape.size))
        return count // step * step, -(-count // step) * step

    def largest(self, values: Tensor, kept: int) -> Tensor:
        return self._filled(values.abs(), kept * self._m // self._shape.size, kept)

    def holds(self, mask: Tensor) -> bool:
        found = self._grouped(mask).sum(dim=3)
        return bool((found == found.flatten()[0]).all())


@dataclass(frozen=True)
class NOfM(Pattern):
    """``n:m``: of every m consecutive input channels of an output channel n are kept."""

    n: int
    m: int
    spelling: ClassVar[str] = "n:m as in 2:4"

    @classmethod
    def read(cls, text: str) -> Self | None:
        found = re.fullmatch(r"(\d+):(\d+)", text)
        if found is None:
            return None
        n, m = int(found[1]), int(found[2])
        if not 0 < n < m:
            raise SparsemendError(
                "pattern n:m keeps n of every m weights", text, "0 < n < m, as in 2:4 or 1:8"
            )
        return cls(n, m)

    @property
    def name(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def density(self) -> Fraction:
        return Fraction(self.n, self.m)

    def refusal(self, shape: MatrixShape) -> str:
        return _refusal(self, self.m, shape)

    def on(self, shape: MatrixShape) -> NOfMStructure:
        return NOfMStructure(shape, self.n, self.m)


@dataclass(frozen=True)
class AnyOfM(Pattern):
    """``n:4`` and the like: n of every m in each layer, n as the allocation says, 1 to m."""

    m: int
    spelling: ClassVar[str] = "n:4 for an n by layer"

    @classmethod
    def read(cls, text: str) -> Self | None:
        found = re.fullmatch(r"n:(\d+)", text)
        if found is None:
            return None
        m = int(found[1])
        if m < 2:
            raise SparsemendError("pattern n:m keeps n of every m weights", text, "m of 2 or more")
        return cls(m)

    @property
    def name(self) -> str:
        return f"n:{self.m}"

    def refusal(self, shape: MatrixShape) -> str:
        return _refusal(self, self.m, shape)

    def on(self, shape: MatrixShape) -> AnyOfMStructure:
        return AnyOfMStructure(shape, self.m)


def _refusal(pattern: Pattern, m: int, shape: MatrixShape) -> str:
    if shape.channels % m == 0:
        return ""
    return f"its number of input channels is no multiple of {m}, as pattern {pattern} needs"
