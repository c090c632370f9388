"""The default grid of densities of a diagnosis."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import floor

import numpy as np

from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer
from sparsemend.patterns import FREE, Pattern

DEFAULT_DENSITIES: tuple[float, ...] = tuple(
    float(density) for density in np.round(np.geomspace(0.01, 1.0, 24), 4)
)


def check_densities(
    densities: Sequence[float] | None, pattern: Pattern = FREE
) -> tuple[float, ...]:
    """Sorted densities, each a fraction in (0, 1]; the default grid for None.

    Where the pattern has one density, that alone.
    """
    if densities is None:
        return DEFAULT_DENSITIES if pattern.density is None else (float(pattern.density),)
    try:
        grid = tuple(sorted({float(density) for density in densities}))
    except (TypeError, ValueError):
        grid = ()
    if not grid or not all(0 < density <= 1 for density in grid):
        raise SparsemendError(
            "densities are not a grid", densities, "fractions in (0, 1], at least one"
        )
    if pattern.density is not None and grid != (float(pattern.density),):
        raise SparsemendError(
            f"pattern {pattern.name!r} has one density",
            densities,
            f"{float(pattern.density):g}",
            "leave densities out",
        )
    return grid


def kept_count(density: float, layer: Layer) -> int:
    """Weights that a layer keeps at a grid density: halves up, at least one.

    Where its pattern does not allow every number, the nearest.
    """
    count = floor(Fraction(density) * layer.size + Fraction(1, 2))
    return layer.structure.nearest(max(1, min(layer.size, count)))
