"""Statistics of pruned outputs from input moments alone: no further forward pass.

With delta = w' − w and P = W Sigma: Var[z' − z] = deltaᵀ Sigma delta, and
v' = v + 2 P·delta + deltaᵀ Sigma delta (method, section 2).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sparsemend.calibration import InputMoments, OutputStatistics
from sparsemend.damage._doubt import doubtful, variances


def output_statistics(
    dense: Tensor, pruned: Iterable[Tensor], moments: InputMoments
) -> OutputStatistics:
    """Paired output statistics of several pruned versions of one layer.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    pruned
        K weight matrices of the same shape; taken one at a time.
    moments
        Of the layer's dense inputs.

    Returns
    -------
    OutputStatistics
        Of shape [K, C]; means are without the layer's bias, which cancels in every error.
    """
    moments = moments.summed()
    covariance = moments.covariance
    enough = covariance.dtype == torch.float64 or covariance.device.type == "mps"
    given, dense = dense, dense.to(covariance.dtype)
    projected = dense @ covariance
    mean = moments.mean
    dense_variance = _row_dot(projected, dense)
    deviation = covariance.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt().unsqueeze(1)
    error_variance, cross, error_mean = [], [], []
    for weights in pruned:
        delta = weights.to(covariance.dtype) - dense
        error = _row_dot(delta @ covariance, delta)
        shared = _row_dot(projected, delta)
        if not enough:
            removed = weights.double() - given.double()
            reach = (_row_dot(weights.abs(), deviation), _row_dot(removed.abs(), deviation))
            present = dense_variance + 2 * shared + error
            rows = doubtful(dense_variance, present, error, reach).nonzero().squeeze(1)
            if len(rows):
                dense_variance[rows] = _variances(given, covariance, rows)
                error[rows] = _variances(removed, covariance, rows)
                change = _variances(weights, covariance, rows) - dense_variance[rows]
                shared[rows] = (change - error[rows]) / 2
        error_variance.append(error)
        cross.append(shared)
        error_mean.append(_row_dot(delta, mean.unsqueeze(1)))
    errors = torch.stack(error_variance)
    return OutputStatistics(
        dense_mean=_row_dot(dense, mean.unsqueeze(1)),
        dense_variance=dense_variance,
        pruned_variance=dense_variance + 2 * torch.stack(cross) + errors,
        error_mean=torch.stack(error_mean),
        error_variance=errors,
    )


def _variances(weights: Tensor, covariance: Tensor, channels: Tensor) -> Tensor:
    """Output variances of some channels, in float64."""
    rows = weights.shape[1]
    found = torch.empty(len(channels), dtype=torch.float64, device=weights.device)
    for group in channels.div(rows, rounding_mode="floor").unique().tolist():
        here = channels.div(rows, rounding_mode="floor") == group
        found[here] = variances(weights[group, channels[here] % rows], covariance[group])
    return found


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ_j a_cj b_cj over [groups, rows, d] → [C], in float64 where the device has it."""
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    return (a.to(wide) * b.to(wide)).sum(dim=2).flatten()
