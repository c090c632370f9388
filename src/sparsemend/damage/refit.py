"""What least squares on the kept weights leaves of a layer's damage, from its moments alone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from sparsemend.calibration import InputMoments
from sparsemend.damage.closed_form import output_statistics
from sparsemend.solvers import solve_on_support

# Only to make singular systems solvable: the residual is that of plain least squares.
_RIDGE = 1e-9


def refitted_damage(dense: Tensor, masks: Iterable[Tensor], moments: InputMoments) -> Tensor:
    """Residual distortion of every channel after reconstruction on each mask, [K, C].

    v_c − a_cᵀ Sigma_KK⁻¹ a_c with a = Sigma_K: w_c (method, section 2), evaluated as the error
    variance of the refitted weights, which does not cancel.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    masks
        K supports of the same shape.
    moments
        Of the layer's dense inputs.
    """

    covariance = moments.covariance.double()
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    alive = diagonal > 1e-12 * diagonal.amax()
    scale = torch.where(alive, diagonal, 1.0).sqrt()
    normalised = covariance / (scale.unsqueeze(2) * scale.unsqueeze(1))
    start = dense.double() * scale.unsqueeze(1)
    target = start @ normalised

    def refitted() -> Iterator[Tensor]:
        for mask in masks:
            if mask.all():
                yield dense.double()
            else:
                values = solve_on_support(normalised, target, mask, _RIDGE)
                yield values / scale.unsqueeze(1)

    return output_statistics(dense.double(), refitted(), moments).error_variance
