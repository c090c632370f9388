"""The closed form over nested masks, each weight multiplied once for the whole grid.

Weights are grouped by the density at which they enter. With Y_b = W_b Sigma for the weights of
group b alone, prefix sums E_k = Σ_{b ≤ k} Y_b = W'_k Sigma and suffix sums
F_k = Σ_{b > k} Y_b = −delta_k Sigma give, from one density to the next,

    v'_k − v'_{k−1} = Σ_{j in group k} w_j (E_k + E_{k−1})_j
    Var_{k−1} − Var_k = Σ_{j in group k} w_j (F_k + F_{k−1})_j    with Var_k = Var[z'_k − z].

The groups are disjoint, so that all Y_b together cost as many multiply-adds as one dense product,
whatever the number of densities. Nothing cancels: the outputs of few weights are sums of few
terms, and so are the errors where few weights are pruned. Where the inputs themselves are held,
:mod:`.nested_inputs` takes their place.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from sparsemend.calibration import InputMoments, OutputStatistics
from sparsemend.damage._cells import Cells, cell_numbers, cell_sums, table_width
from sparsemend.damage._doubt import doubtful, variances
from sparsemend.damage.nested_inputs import squares_of_outputs


def nested_statistics(
    dense: Tensor, entries: Tensor, masks: int, moments: InputMoments
) -> OutputStatistics:
    """Paired output statistics of a layer under nested masks.

    Products are in float32 (float64 for float64 weights), sums in float64; channels in which these
    cancel are computed once more in float64. On the CPU only.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    entries
        Number from 0 to K − 1 of the first mask that holds each weight, or K; same shape.
    masks
        Number K of masks.
    moments
        Of the layer's dense inputs.

    Returns
    -------
    OutputStatistics
        Of shape [K, C]; means are without the layer's bias.
    """
    size = masks + 1
    sums, means = [], []
    for g, (weight, entry) in enumerate(zip(dense, entries, strict=True)):
        mean = cell_sums(weight, entry, size, moments.mean[g])
        means.append(mean.T)
        if moments.held is None:
            sums.append(_from_scatter(weight, entry, size, moments.scatter[g]))
        else:
            sums.append(squares_of_outputs(moments.held, g, weight, entry, mean))
    pruned, error = torch.cat(sums, dim=2) / moments.count
    parts = torch.cat(means, dim=1)
    return OutputStatistics(
        dense_mean=parts.sum(dim=0),
        dense_variance=pruned[-1].clamp(min=0),
        pruned_variance=pruned[:-1].clamp(min=0),
        error_mean=-_after(parts)[:-1],
        error_variance=error[:-1].clamp(min=0),
    )


def _after(steps: Tensor) -> Tensor:
    """Σ of the later steps, [K + 1, C]."""
    return torch.cat([steps.flip(0).cumsum(0).flip(0)[1:], torch.zeros_like(steps[:1])])


def _from_scatter(weight: Tensor, entry: Tensor, size: int, scatter: Tensor) -> Tensor:
    """w'ᵀ S w' and deltaᵀ S delta for every mask and row, [2, K + 1, rows].

    Parameters
    ----------
    weight, entry
        [rows, d]; weights, and numbers of the masks with which they enter.
    size
        K + 1.
    scatter
        S, [d, d].
    """
    cells = Cells(weight, entry, size)
    fan_in = weight.shape[1]
    gains, losses = torch.empty(2, *weight.shape, dtype=torch.float64)
    width = table_width(fan_in)
    for start in range(0, fan_in, width):
        block = slice(start, start + width)
        own = cells.multiply(scatter[:, block])
        numbers = cell_numbers(entry[:, block], size)
        place = numbers * own.shape[2] + torch.arange(own.shape[2])
        here = partial(_at, places=place)
        own_here = here(own)
        before, after = _running(own)
        # 2 E_k − Y_k = E_k + E_{k−1}, and 2 F_k + Y_k with F_k + Y_k the suffix sum from k on.
        gains[:, block] = 2 * here(before) - own_here
        losses[:, block] = 2 * here(after) - own_here
    gained, lost = (cell_sums(weight, entry, size, values).T for values in (gains, losses))
    found = torch.stack([gained.cumsum(0), _after(lost)])
    _mend(found, weight, entry, scatter)
    return found


def _mend(found: Tensor, weight: Tensor, entry: Tensor, scatter: Tensor) -> None:
    """Compute rows again in which the products cancel, [2, K + 1, rows] in place."""
    if weight.dtype == torch.float64:
        return
    size = found.shape[1]
    deviation = scatter.diagonal().double().clamp(min=0).sqrt()
    reach = cell_sums(weight.abs(), entry, size, deviation).T
    kept, removed = found
    doubt = doubtful(kept[-1], kept, removed, (reach.cumsum(0), _after(reach)))
    rows = doubt.any(dim=0).nonzero().squeeze(1)
    if not len(rows):
        return
    chosen, entered = weight[rows], entry[rows]
    for k in range(size):
        within = entered <= k
        kept[k, rows] = variances(chosen * within, scatter)
        removed[k, rows] = variances(chosen * ~within, scatter)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """Elements of a tensor at flat places, in the shape of the places."""
    return values.view(-1).index_select(0, places.flatten()).view(places.shape)


def _running(own: Tensor) -> tuple[Tensor, Tensor]:
    """Prefix and suffix sums over dimension 1, both inclusive; ``own`` is overwritten."""
    before = torch.empty_like(own)
    before[:, 0] = own[:, 0]
    for k in range(1, own.shape[1]):
        torch.add(before[:, k - 1], own[:, k], out=before[:, k])
    for k in reversed(range(own.shape[1] - 1)):
        own[:, k] += own[:, k + 1]
    return before, own
