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
# Columns from which refits are iterated in float32, each from the one before, to this tolerance:
# exact ones would take hours. At densities below a half less than 1 % too much is left then.
_ITERATED_FROM = 1024
_TOLERANCE = 1e-2


def refitted_damage(dense: Tensor, masks: Iterable[Tensor], moments: InputMoments) -> Tensor:
    """Residual distortion of every channel after reconstruction on each mask, [K, C].

    v_c − a_cᵀ Sigma_KK⁻¹ a_c with a = Sigma_K: w_c (method, section 2), evaluated as the error
    variance of the refitted weights, which does not cancel. In layers of 1,024 inputs or more the
    least squares are solved to a tolerance.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    masks
        K supports of the same shape.
    moments
        Of the layer's dense inputs.
    """

    wide = dense.shape[2] >= _ITERATED_FROM
    precision = torch.float32 if wide else torch.float64
    covariance = moments.covariance.to(precision)
    diagonal = covariance.diagonal(dim1=1, dim2=2)
    alive = diagonal > 1e-12 * diagonal.amax()
    scale = torch.where(alive, diagonal, 1.0).sqrt()
    normalised = covariance / (scale.unsqueeze(2) * scale.unsqueeze(1))
    start = dense.to(precision) * scale.unsqueeze(1)
    target = start @ normalised

    def refitted() -> Iterator[Tensor]:
        values = start
        for mask in masks:
            if mask.all():
                yield dense.double()
            elif wide:
                values = solve_on_support(normalised, target, mask, _RIDGE, values, _TOLERANCE)
                yield values / scale.unsqueeze(1)
            else:
                yield solve_on_support(normalised, target, mask, _RIDGE) / scale.unsqueeze(1)

    return output_statistics(dense.double(), refitted(), moments).error_variance
