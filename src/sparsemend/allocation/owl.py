"""Outlier Weighed Layerwise sparsity: layers with more outliers keep more (arXiv 2310.05175)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from sparsemend.allocation.budget import round_to_budget
from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule
from sparsemend.errors import SparsemendError

# The paper's M and λ.
_OUTLIER, _SPREAD = 5.0, 0.08

Values = npt.NDArray[np.float64]


def owl(problem: Problem, *, outlier: float = _OUTLIER, spread: float = _SPREAD) -> tuple[int, ...]:
    """Sparsities in proportion to 1 − D_l around the one asked for (arXiv 2310.05175).

    D_l is the share of the scores |w_ij| · ‖x_j‖ of layer l that exceed ``outlier`` times their
    mean. As in the authors' code, densities are D_l brought to [0, 2 · ``spread``] and moved by
    one amount for all to the budget, which here counts every layer by its size. Those that would
    leave (0, 1] are moved to its ends, and the rest goes to the others.

    Parameters
    ----------
    outlier
        M of the paper, more than 0: how many times the mean an outlier is.
    spread
        λ of the paper, in [0, 1]: half of what densities differ by at most.

    Returns
    -------
    Kept count of each layer, in execution order.

    Raises
    ------
    SparsemendError
        If there are no moments of the layers' inputs, or an option is out of range.
    """
    if not 0 < outlier < math.inf:
        raise SparsemendError("outlier of rule 'owl' is out of range", outlier, "more than 0")
    if not 0 <= spread <= 1:
        raise SparsemendError("spread of rule 'owl' is out of range", spread, "0 to 1")
    ratios = np.array([_outlier_ratio(problem, i, outlier) for i in range(len(problem.layers))])
    apart = float(np.ptp(ratios))
    above = 2 * spread * (ratios - ratios.min()) / apart if apart else np.zeros_like(ratios)
    densities = _moved(above, np.array(problem.sizes, dtype=np.float64), problem.keep)
    return round_to_budget(densities.tolist(), problem.sizes, problem.keep)


def _outlier_ratio(problem: Problem, i: int, outlier: float) -> float:
    """D of the i-th layer."""
    scores = problem.input_scores(i, rule="owl")
    above = scores > outlier * scores.double().mean()
    return float(above.double().mean())


def _moved(above: Values, sizes: Values, keep: int) -> Values:
    """The densities clip(c + above, 0, 1) of which so many weights are kept, by bisection on c."""
    low, high = -float(above.max()), 1.0
    for _ in range(80):
        middle = (low + high) / 2
        if float(sizes @ np.clip(middle + above, 0, 1)) < keep:
            low = middle
        else:
            high = middle
    moved: Values = np.clip(high + above, 0, 1)
    return moved


OWL = Rule("owl", owl, needs="columns", colour="yellow", rank=8, searched=False)
