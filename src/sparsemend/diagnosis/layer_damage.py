"""What of a pruned layer's statistics is its damage."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from sparsemend.calibration import OutputStatistics
from sparsemend.recipe.defaults import WEIGHTING

# Channels whose dense variance is below this fraction of the layer's largest are left out.
_DEAD_CHANNEL = 1e-12


def mean_damage(
    statistics: OutputStatistics, residuals: Tensor, weighting: str = WEIGHTING
) -> tuple[np.ndarray, np.ndarray, int]:
    """Raw and residual damage [K] over channels, and how many channels were left out."""
    dense = statistics.dense_variance
    alive = dense > _DEAD_CHANNEL * dense.max()
    raw = statistics.raw_distortion[:, alive]
    residual = residuals[:, alive]
    variance = dense[alive]
    dead = int((~alive).sum())
    if not alive.any():  # a constant layer: nothing to damage, nothing to repair
        zero = np.zeros(raw.shape[0])
        return zero, zero, dead
    if weighting == "energy":
        raw, residual = raw.sum(dim=1) / variance.sum(), residual.sum(dim=1) / variance.sum()
    else:
        raw, residual = (raw / variance).mean(dim=1), (residual / variance).mean(dim=1)
    return raw.double().cpu().numpy(), residual.double().cpu().numpy(), dead
