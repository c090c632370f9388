"""Channels whose statistics are what rounding leaves of float32 products, computed once more.

A variance wᵀ Sigma w is at most (Σ_j |w_j| s_j)² with s_j the deviation of input j; where it is
far below that, its terms cancel. So do those of a residual where pruned outputs are nearly in
proportion to dense ones. And where they are tiny, the scale that repairs them multiplies rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Least share of their bound, and of the error that no scale explains, at which variances are
# trusted: rounding in float32, 6e-8 of the terms, is then below a thousandth.
_CANCELS = 1e-5
_EXPLAINED = 1e-3
# Least share of the dense variance.
_TINY = 1e-6
# Elements of the pruned rows that are multiplied at a time.
_BLOCK = 1 << 22


def doubtful(dense: Tensor, pruned: Tensor, error: Tensor, reach: tuple[Tensor, Tensor]) -> Tensor:
    """Where float32 is not enough, boolean [..., C].

    Parameters
    ----------
    dense
        Variance of the dense outputs, [C].
    pruned, error
        Variance of the pruned outputs and of the error, [..., C].
    reach
        Bounds of their square roots.
    """
    kept, removed = reach
    cancels = (pruned < _CANCELS * kept.square()) | (error < _CANCELS * removed.square())
    shared = (pruned - dense + error) / 2  # Cov[z', z' − z]
    alive = pruned > 0
    explained = shared.square() / pruned.where(alive, pruned.new_ones(()))
    unexplained = error - explained.where(alive, explained.new_zeros(()))
    tiny = (pruned != 0) & (pruned < _TINY * dense)
    return cancels | tiny | ((unexplained < _EXPLAINED * error) & (error > 0))


def variances(rows: Tensor, matrix: Tensor) -> Tensor:
    """wᵀ M w of every row of w, [..., d] and [d, d] → [...], in float64."""
    wide = matrix.double()
    flat = rows.reshape(-1, rows.shape[-1])
    parts = flat.split(max(1, _BLOCK // rows.shape[-1]))
    found = [((part := chunk.double()) @ wide * part).sum(dim=1) for chunk in parts]
    return torch.cat(found).reshape(rows.shape[:-1]).clamp(min=0)
