"""Layer-adaptive magnitude: each weight against what would survive with it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sparsemend.allocation.problem import Array, Problem
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.threshold import threshold_counts

Magnitudes = npt.NDArray[np.floating]


def lamp_scores(descending: Magnitudes) -> Array:
    """LAMP scores of one layer, in descending order.

    score(u) = w_u² / Σ w_v² over all v with |w_v| ≥ |w_u| (arXiv 2010.07611, equation 2).
    Weights of equal magnitude have equal scores; weights that are zero score 0.

    Parameters
    ----------
    descending
        |w| of a layer, the largest first, shape [n].

    Returns
    -------
    Scores in [0, 1], float64, shape [n].
    """
    # From the large end the sum over |w_v| ≥ |w_u| only ever adds: the other way round,
    # total − cumsum cancels exactly where the scores are largest.
    sums = np.square(descending, dtype=np.float64)
    np.cumsum(sums, out=sums)
    # All weights of one magnitude take the sum at the last of them. The sums ascend, so that
    # is the least of the following sums that end a run of equal magnitudes.
    sums[:-1][descending[:-1] == descending[1:]] = np.inf
    from_end = sums[::-1]
    np.minimum.accumulate(from_end, out=from_end)
    scores = np.square(descending, dtype=np.float64)
    # A sum of 0 divides only zeros, in a layer of zeros: they stay 0.
    return np.divide(scores, sums, out=scores, where=sums > 0)


def lamp(problem: Problem) -> tuple[int, ...]:
    """Keep the largest LAMP scores of the whole network (arXiv 2010.07611).

    Equal scores go to the earlier layer. Every layer keeps its largest weight, whose score
    is the highest possible, 1, unless it is tied or zero. Where weights have prices, the largest
    scores per price are kept. Needs one sorted copy of the weights, and the scores of one layer at
    a time.

    Returns
    -------
    Kept count of each layer, in execution order.
    """
    ordered = [_descending(problem.magnitudes(i)) for i in range(len(problem.layers))]

    def scores(i: int) -> Tensor:
        found = torch.from_numpy(lamp_scores(ordered[i]))
        return found.div_(float(problem.price(i))) if problem.prices else found

    return threshold_counts(scores, problem.sizes, problem.keep)


def _descending(magnitudes: Tensor) -> Magnitudes:
    # On the CPU whatever the model's device: running sums there have one fixed order. NumPy
    # sorts in a third of the time, and without an index of twice the size of the values.
    values: Magnitudes = magnitudes.cpu().numpy()
    values.sort()
    return values[::-1]


LAMP = Rule("lamp", lamp, needs="weights", colour="green", rank=2)
