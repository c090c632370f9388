"""The least-squares problem of a layer on its own dense inputs and outputs."""

from __future__ import annotations

from torch import Tensor

from sparsemend.masks.rule import LayerFit
from sparsemend.solvers import ShiftedInverses

# As in the repair `reconstruct`.
RIDGE = 1e-3


def dense_fit(dense: Tensor, covariance: Tensor) -> LayerFit:
    """What a mask that is chosen with the fit looks at in a diagnosis.

    In a compression the choice belongs to a repair, which knows the inputs of the network
    repaired so far and corrects what went wrong upstream.

    Parameters
    ----------
    dense
        Weights [groups, rows, d].
    covariance
        Sigma of the dense inputs, [groups, d, d].
    """
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    scale = diagonal.clamp(min=0).sqrt()
    scale = scale.where(scale > 0, scale.new_ones(()))
    normalised = covariance / (scale.unsqueeze(2) * scale.unsqueeze(1))
    start = dense.to(covariance.dtype) * scale.unsqueeze(1)
    target = start @ normalised
    deviation = (target * start).sum(dim=2, keepdim=True).clamp(min=0).sqrt()
    rows = deviation.where(deviation > 0, deviation.new_ones(()))
    return LayerFit(ShiftedInverses(normalised), target / rows, start / rows, RIDGE)
