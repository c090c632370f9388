"""Cholesky factors of matrices that rounding may have made indefinite."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.finite import NotFiniteError, is_finite

# Shifts grow at least twofold: after so many they exceed whatever a finite matrix needs.
_ATTEMPTS = 128


def factorise(systems: Tensor, shift: float, growth: float) -> Tensor:
    """Lower Cholesky factors; where one does not exist, of all systems plus a multiple of I.

    Parameters
    ----------
    systems
        Symmetric, [..., d, d]; overwritten.
    shift
        What is first added to the diagonals where that is needed.
    growth
        By how much further shifts are larger, 2 or more.

    Raises
    ------
    NotFiniteError
        If the systems hold NaN or infinity, or no shift helps.
    """
    diagonal = systems.diagonal(dim1=-2, dim2=-1)
    for _ in range(_ATTEMPTS):
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(systems)
        if not failed.any():
            return factor
        if not is_finite(systems):
            break
        diagonal.add_(shift)
        shift *= growth
    raise NotFiniteError(
        "a least-squares problem has no solution: its moments are not finite",
        fix="check the network and the calibration inputs",
    )
