"""Statistics of pruned outputs from input moments alone: no further forward pass.

With delta = w' − w and P = W Sigma: Var[z' − z] = deltaᵀ Sigma delta, and
v' = v + 2 P·delta + deltaᵀ Sigma delta (method, section 2).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from sparsemend.calibration import InputMoments, OutputStatistics


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
    dense = dense.to(covariance.dtype)
    projected = dense @ covariance
    mean = moments.mean
    error_variance, cross, error_mean = [], [], []
    for weights in pruned:
        delta = weights.to(covariance.dtype) - dense
        error_variance.append(_row_dot(delta @ covariance, delta))
        cross.append(_row_dot(projected, delta))
        error_mean.append(_row_dot(delta, mean.unsqueeze(1)))
    dense_variance = _row_dot(projected, dense)
    errors = torch.stack(error_variance)
    return OutputStatistics(
        dense_mean=_row_dot(dense, mean.unsqueeze(1)),
        dense_variance=dense_variance,
        pruned_variance=dense_variance + 2 * torch.stack(cross) + errors,
        error_mean=torch.stack(error_mean),
        error_variance=errors,
    )


def _row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Σ_j a_cj b_cj over [groups, rows, d] → [C], in float64 where the device has it."""
    wide = torch.float32 if a.device.type == "mps" else torch.float64
    return (a.to(wide) * b.to(wide)).sum(dim=2).flatten()
