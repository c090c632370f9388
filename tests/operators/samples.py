"""Statistics for the operator tests, and the method's formulas written out once more."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st

from sparsemend.calibration import OutputStatistics


def statistics_of(v, pruned, q, mean=0.0, error_mean=0.0) -> OutputStatistics:
    """From v, v' and q [C], as a single variant."""
    v, pruned, q = (torch.as_tensor(x, dtype=torch.float64).reshape(-1) for x in (v, pruned, q))
    return OutputStatistics(
        dense_mean=torch.full_like(v, mean),
        dense_variance=v,
        pruned_variance=pruned[None],
        error_mean=torch.full_like(v, error_mean)[None],
        error_variance=(v - 2 * q + pruned)[None],
    )


@st.composite
def channels(draw, smallest=0.05, size=None):
    """Dense variances v, ratios r and correlations rho of a layer's channels, [C] each."""
    count = draw(st.integers(1, 5)) if size is None else size
    v = draw(st.lists(st.floats(1e-9, 100), min_size=count, max_size=count))
    r = draw(st.lists(st.floats(smallest, 3), min_size=count, max_size=count))
    rho = draw(st.lists(st.floats(-1, 1), min_size=count, max_size=count))
    return np.array(v), np.array(r), np.array(rho)


def from_channels(case, **means) -> OutputStatistics:
    v, r, rho = case
    return statistics_of(v, r**2 * v, rho * r * v, **means)


def scales(case) -> dict[str, np.ndarray]:
    """Scale g per operator, eps → 0."""
    v, r, rho = case
    pruned = r**2 * v
    strength = pruned / (pruned + np.median(pruned))
    return {
        "mean": np.ones_like(v),
        "variance": 1 / r,
        "layerwise": np.full_like(v, np.sqrt(v.mean() / pruned.mean())),
        "shrinkage": strength / r + 1 - strength,
        "affine": rho / r,
    }


def residuals(case) -> dict[str, np.ndarray]:
    """Residual with the mean matched per operator, from the method's table."""
    v, r, rho = case
    pruned, q, g = r**2 * v, rho * r * v, scales(case)
    return {
        "mean": v - 2 * q + pruned,
        "variance": 2 * (1 - rho) * v,
        "layerwise": v - 2 * g["layerwise"] * q + g["layerwise"] ** 2 * pruned,
        "shrinkage": v - 2 * g["shrinkage"] * q + g["shrinkage"] ** 2 * pruned,
        "affine": (1 - rho**2) * v,
    }
