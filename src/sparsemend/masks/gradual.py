"""Gradual masks: chosen jointly with the values that reconstruct the layer.

Operator splitting with a shrinking budget (arXiv 2401.02938, 2406.07831).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule
from sparsemend.solvers import choose_support, nested_supports


def choose(problem: MaskProblem, kept: int) -> Tensor:
    """A mask [groups, rows, d] of exactly ``kept`` weights on which the layer fits well."""
    fit = problem.fit
    assert fit is not None, "the rule says that it needs it"
    return choose_support(
        fit.inverses,
        fit.target,
        fit.start,
        kept,
        fit.ridge,
        fit.schedule,
        problem.structure.largest,
        fit.splitting,
    )


def stand_ins(problem: MaskProblem, kept: Sequence[int]) -> Tensor:
    """Nested masks of many counts, as entry numbers: all from one splitting."""
    fit = problem.fit
    assert fit is not None, "the rule says that it needs it"
    return nested_supports(
        fit.inverses, fit.target, fit.start, kept, fit.ridge, problem.structure.largest
    )


GRADUAL = MaskRule("gradual", needs="fit", choose=choose, stand_ins=stand_ins)
