"""Uniform, but the first convolution stays dense and the last layer nearly."""

from __future__ import annotations

from sparsemend.allocation.budget import round_to_budget
from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule


def uniform_plus(problem: Problem) -> tuple[int, ...]:
    """Uniform+ of "The State of Sparsity" (arXiv 1902.09574).

    The first convolution stays dense, the last layer keeps at least 20 % of its weights
    (rounded up), every other layer has the same density. A network without convolutions has
    no dense layer.

    Returns
    -------
    Kept count of each layer, in execution order.

    Raises
    ------
    SparsemendError
        If the protected weights alone exceed the budget, with the largest feasible sparsity.
    """
    minimum = [1] * len(problem.layers)
    minimum[-1] = -(-problem.sizes[-1] // 5)
    first = next((i for i, layer in enumerate(problem.layers) if layer.is_convolution), None)
    if first is not None:
        minimum[first] = problem.sizes[first]
    return round_to_budget([1.0] * len(minimum), problem.sizes, problem.keep, minimum)


# Its dense layers alone may exceed the budget.
UNIFORM_PLUS = Rule(
    "uniform+", uniform_plus, needs="shapes", may_refuse=True, colour="brown", rank=3
)
