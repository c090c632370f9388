"""Gradual masks: chosen jointly with the values that reconstruct the layer.

Operator splitting with a shrinking budget (arXiv 2401.02938, 2406.07831). In a compression the
choice belongs to the repair ``reconstruct``, which knows the inputs of the network repaired so
far; here it is made on dense inputs and targets, for a diagnosis.
"""

from __future__ import annotations

from torch import Tensor

from sparsemend.solvers import choose_support

# As in the repair; see repair/_fit.py.
_RIDGE = 1e-3


def gradual(dense: Tensor, covariance: Tensor, kept: int) -> Tensor:
    """A mask [groups, rows, d] of exactly ``kept`` weights on which the layer reconstructs well.

    Parameters
    ----------
    dense
        Weights [groups, rows, d].
    covariance
        Sigma of the dense inputs, [groups, d, d].
    kept
        Exact count over the whole layer.
    """
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    scale = diagonal.clamp(min=0).sqrt()
    scale = scale.where(scale > 0, scale.new_ones(()))
    normalised = covariance / (scale.unsqueeze(2) * scale.unsqueeze(1))
    start = dense.to(covariance.dtype) * scale.unsqueeze(1)
    target = start @ normalised
    deviation = (target * start).sum(dim=2, keepdim=True).clamp(min=0).sqrt()
    rows = deviation.where(deviation > 0, deviation.new_ones(()))
    return choose_support(normalised, target / rows, start / rows, kept, _RIDGE)
