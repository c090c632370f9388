"""Wanda's masks (arXiv 2306.11695): |w_ij| · ‖x_j‖, compared within each output channel."""

from __future__ import annotations

from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule


def score(problem: MaskProblem) -> Tensor:
    """|w_ij| · sqrt(E x_j²) of weights [groups, rows, d].

    Every row keeps the same number; where the count does not divide, earlier rows keep one
    more.
    """
    assert problem.moments is not None, "the rule says that it needs them"
    weight = problem.weight
    scale = problem.moments.column_square.sqrt().to(weight.dtype)
    return weight.abs() * scale.unsqueeze(1)


ACTIVATION = MaskRule("activation", needs="columns", score=score, within="row")
