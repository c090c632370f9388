"""No pattern: any weights can be kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from torch import Tensor

from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern, Structure, Within
from sparsemend.solvers.ranking import (
    best_of_rows,
    descending_rank,
    entries_by_score,
    rank_within_rows,
)
from sparsemend.solvers.splitting import largest_entries


class FreeStructure(Structure):
    """Every weight for itself."""

    def around(self, count: int) -> tuple[int, int]:
        return count, count

    def rank(self, score: Tensor, within: Within = "layer") -> Tensor:
        return rank_within_rows(score) if within == "row" else descending_rank(score)

    def best(self, score: Tensor, kept: int, within: Within = "layer") -> Tensor:
        """Without the ranks of all."""
        if within == "row":
            return best_of_rows(score, kept)
        return entries_by_score(score, [kept]) == 0

    def largest(self, values: Tensor, kept: int) -> Tensor:
        return largest_entries(values, kept)

    def holds(self, mask: Tensor) -> bool:  # noqa: ARG002
        return True


UNSTRUCTURED = FreeStructure()


@dataclass(frozen=True)
class Free(Pattern):
    """``free``."""

    spelling: ClassVar[str] = "free"

    @classmethod
    def read(cls, text: str) -> Self | None:
        return cls() if text == cls.spelling else None

    @property
    def name(self) -> str:
        return self.spelling

    def on(self, shape: MatrixShape) -> FreeStructure:  # noqa: ARG002
        return UNSTRUCTURED


FREE = Free()
