"""Layer-adaptive magnitude: each weight against what would survive with it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.threshold import threshold_counts

# Up to so many weights, scores are held (256 MiB) instead of made anew whenever they are read.
_HELD = 1 << 25
# Terms that one row of running sums has on an accelerator.
_ROW = 2048


def lamp_scores(descending: Tensor) -> Tensor:
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
    sums = running_sums(descending.double().square_())
    # All weights of one magnitude take the sum at the last of them. The sums ascend, so that
    # is the least of the following sums that end a run of equal magnitudes.
    sums[:-1].masked_fill_(descending[:-1] == descending[1:], torch.inf)
    sums = sums.flip(0).cummin(dim=0).values.flip(0)
    scores = descending.double().square_().div_(sums)
    # A sum of 0 divides only zeros, in a layer of zeros: they stay 0.
    return scores.masked_fill_(sums == 0, 0)


def running_sums(terms: Tensor) -> Tensor:
    """Σ of the terms up to each, in one fixed order on every kind of device, [n]."""
    if terms.device.type == "cpu":
        return terms.cumsum(dim=0)
    # Accelerators cut one long vector among blocks, and add as these happen to end; rows of a
    # matrix they scan in one order.
    rows = F.pad(terms, (0, -len(terms) % _ROW)).view(-1, _ROW).cumsum(dim=1)
    ends = rows[:, -1].expand(2, -1).cumsum(dim=1)[0]
    rows[1:] += ends[:-1].unsqueeze(1)
    return rows.flatten()[: len(terms)]


def lamp(problem: Problem) -> tuple[int, ...]:
    """Keep the largest LAMP scores of the whole network (arXiv 2010.07611).

    Equal scores go to the earlier layer. Every layer keeps its largest weight, whose score
    is the highest possible, 1, unless it is tied or zero. Where weights have prices, the largest
    scores per price are kept. On the device of the weights, needs one sorted copy of them, and the
    scores of one layer at a time; of small networks, those of all.

    Returns
    -------
    Kept count of each layer, in execution order.
    """
    ordered = [_descending(problem.magnitudes(i)) for i in range(len(problem.layers))]

    def scores(i: int) -> Tensor:
        found = lamp_scores(ordered[i])
        return found.div_(float(problem.price(i))) if problem.prices else found

    if problem.total > _HELD:
        return threshold_counts(scores, problem.sizes, problem.keep)
    held = [scores(i) for i in range(len(ordered))]
    return threshold_counts(lambda i: held[i].clone(), problem.sizes, problem.keep)


def _descending(magnitudes: Tensor) -> Tensor:
    if magnitudes.device.type == "mps":  # has no float64
        magnitudes = magnitudes.cpu()
    if magnitudes.device.type != "cpu":
        return magnitudes.sort(descending=True).values
    # NumPy sorts in a tenth of the time, and without an index of twice the size of the values.
    magnitudes.numpy().sort()
    return magnitudes.flip(0)


LAMP = Rule("lamp", lamp, needs="weights", colour="green", rank=2)
