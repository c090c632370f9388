"""One magnitude threshold over all layers."""

from __future__ import annotations

from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.threshold import threshold_counts


def global_magnitude(problem: Problem) -> tuple[int, ...]:
    """Keep the largest |w| of the whole network.

    Weights equal to the threshold go to the earlier layer, then the smaller index. The
    largest weight of each layer is always kept: no layer is emptied.

    Returns
    -------
    Kept count of each layer, in execution order.
    """
    return threshold_counts(problem.magnitudes, problem.sizes, problem.keep)


# Beyond 95 % it may leave layers next to nothing.
GLOBAL = Rule("global", global_magnitude, needs="weights", colour="blue", rank=0, sparse_rank=2.5)
