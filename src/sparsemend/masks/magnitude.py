"""Magnitude masks: the largest |w| of the layer are kept."""

from __future__ import annotations

from torch import Tensor

from sparsemend.solvers.ranking import descending_rank


def magnitude(weight: Tensor, column_square: Tensor | None) -> Tensor:  # noqa: ARG001
    """Rank weights [groups, rows, d] by |w|, over the whole layer."""
    return descending_rank(weight.abs())
