"""Gradual masks: chosen jointly with the values that reconstruct the layer.

Operator splitting with a shrinking budget (arXiv 2401.02938, 2406.07831).
"""

from __future__ import annotations

from torch import Tensor

from sparsemend.masks.rule import MaskProblem, MaskRule
from sparsemend.solvers import choose_support


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


GRADUAL = MaskRule("gradual", needs="fit", choose=choose)
