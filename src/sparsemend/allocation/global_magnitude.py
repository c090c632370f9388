"""One magnitude threshold over all layers."""

from __future__ import annotations

import math

from torch import Tensor

from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.threshold import threshold_counts


def global_magnitude(problem: Problem) -> tuple[int, ...]:
    """Keep the largest |w| of the whole network.

    Weights equal to the threshold go to the earlier layer, then the smaller index. The
    largest weight of each layer is always kept: no layer is emptied. Where weights have prices,
    the largest w² per price are kept: those that are worth most of what they cost.

    Returns
    -------
    Kept count of each layer, in execution order.
    """

    def scores(i: int) -> Tensor:
        magnitudes = problem.magnitudes(i)
        return magnitudes.div_(math.sqrt(problem.price(i))) if problem.prices else magnitudes

    return threshold_counts(scores, problem.sizes, problem.keep)


# Beyond 95 % it may leave layers next to nothing.
GLOBAL = Rule("global", global_magnitude, needs="weights", colour="blue", rank=0, sparse_rank=2.5)
