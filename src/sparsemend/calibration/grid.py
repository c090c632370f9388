"""The default grid of densities of a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from sparsemend.errors import SparsemendError

DEFAULT_DENSITIES: tuple[float, ...] = tuple(
    float(density) for density in np.round(np.geomspace(0.01, 1.0, 24), 4)
)


def check_densities(densities: Sequence[float] | None) -> tuple[float, ...]:
    """Sorted densities, each a fraction in (0, 1]; the default grid for None."""
    if densities is None:
        return DEFAULT_DENSITIES
    try:
        grid = tuple(sorted({float(density) for density in densities}))
    except (TypeError, ValueError):
        grid = ()
    if not grid or not all(0 < density <= 1 for density in grid):
        raise SparsemendError(
            "densities are not a grid", densities, "fractions in (0, 1], at least one"
        )
    return grid


def kept_count(density: float, size: int) -> int:
    """Weights kept in a layer of ``size`` at a grid density: halves up, at least one."""
    return max(1, min(size, floor(Fraction(density) * size + Fraction(1, 2))))
