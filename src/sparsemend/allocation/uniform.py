"""The same density everywhere."""

from __future__ import annotations

from sparsemend.allocation.budget import round_to_budget
from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule


def uniform(problem: Problem) -> tuple[int, ...]:
    """Keep the same fraction of every layer, rounded to the exact budget.

    Returns
    -------
    Kept count of each layer, in execution order.
    """
    return round_to_budget([1.0] * len(problem.layers), problem.sizes, problem.keep)


UNIFORM = Rule("uniform", uniform, needs="shapes", colour="grey", rank=4, even=True)
