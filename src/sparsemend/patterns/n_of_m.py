"""n of every m consecutive input channels, as sparse matrix units of accelerators compute with."""

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


class NOfMStructure(Structure):
    """Groups of m weights: consecutive input channels at one position of the kernel.

    Parameters
    ----------
    shape
        Of the matrix.
    n, m
        How many of how many are kept.
    """

    def __init__(self, shape: MatrixShape, n: int, m: int) -> None:
        self._shape, self._n, self._m = shape, n, m
        self._count = shape.size // m * n

    def around(self, count: int) -> tuple[int, int]:  # noqa: ARG002
        return self._count, self._count

    def rank(self, score: Tensor, within: Within = "layer") -> Tensor:  # noqa: ARG002
        """What is best in its group comes first; every row then keeps the same number anyway."""
        best = self._best(score)
        return descending_rank(descending_rank(score) * -1 + best * score.numel())

    def largest(self, values: Tensor, kept: int) -> Tensor:
        size = values.abs()
        best = self._best(size)
        if kept <= self._count:
            return best
        return largest_entries(size.masked_fill(best, torch.inf), kept)

    def holds(self, mask: Tensor) -> bool:
        return bool((self._grouped(mask).sum(dim=3) == self._n).all())

    def _grouped(self, matrix: Tensor) -> Tensor:
        """[groups, rows, groups of channels, m, taps]."""
        groups, rows, channels, taps = self._shape
        return matrix.reshape(groups, rows, channels // self._m, self._m, taps)

    def _best(self, score: Tensor) -> Tensor:
        """Mask of the n largest of every group; of equal ones the first."""
        parts = self._grouped(score).movedim(3, 0).contiguous()
        # How many of its group come before a weight; comparing all pairs is faster than sorting.
        before = torch.zeros(parts.shape, dtype=torch.int16, device=parts.device)
        for j in range(1, self._m):
            wins = parts[:j] >= parts[j]
            before[j] += wins.sum(dim=0, dtype=torch.int16)
            before[:j] += ~wins
        return (before < self._n).movedim(0, 3).reshape(score.shape)


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
        if shape.channels % self.m == 0:
            return ""
        return f"its number of input channels is no multiple of {self.m}, as pattern {self} needs"

    def on(self, shape: MatrixShape) -> NOfMStructure:
        return NOfMStructure(shape, self.n, self.m)
