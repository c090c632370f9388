"""Magnitude masks: the largest |w| of the layer are kept."""

from __future__ import annotations

from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule


def score(problem: MaskProblem) -> Tensor:
    """|w|, compared over the whole layer."""
    return problem.weight.abs()


MAGNITUDE = MaskRule("magnitude", score=score)
