from __future__ import annotations

import numpy as np
import pytest

from sparsemend.runtime.geometry import Needs, blocks
from sparsemend.runtime.weights import margin_runs


@pytest.mark.parametrize("grid", [(4, 2), (4, 4), (1, 8)])
@pytest.mark.parametrize("size", [(1, 1), (1, 3), (2, 2)])
@pytest.mark.parametrize(
    ("before", "beyond"), [((1, 1), (1, 1)), ((2, 0), (0, 3)), ((0, 0), (0, 0))]
)
def test_margins_are_what_is_beside_a_block(grid, size, before, beyond):
    needs = Needs()
    needs.read(size[1] + beyond[1], before[1], before, beyond)
    geometry = blocks((1, *size), needs, grid)
    height, width = grid[0] * size[0], grid[1] * size[1]
    image = np.arange(1, 1 + height * width).reshape(height, width)
    arena = np.full(geometry.plane + 2 * geometry.lanes, -5)
    arena = np.concatenate([arena[: geometry.lanes], arena])  # loads begin in front of it
    origin = geometry.lanes + geometry.lead

    def vector(y, x):
        start = origin + (y * geometry.pitch + x) * geometry.lanes
        return slice(start, start + geometry.lanes)

    def block(padded, y, x):
        """The lanes of a position: of every block the same one."""
        return [padded[before[0] + i * size[0] + y, before[1] + j * size[1] + x]
                for i in range(grid[0]) for j in range(grid[1])]  # fmt: skip

    padded = np.pad(image, list(zip(before, beyond, strict=True)), constant_values=-9)
    for y in range(size[0]):
        for x in range(size[1]):
            arena[vector(y, x)] = block(padded, y, x)
    for to, source, vectors, *inside in margin_runs(geometry).tolist():
        for k in range(vectors):
            start = origin + source + k * geometry.lanes
            values = arena[start : start + geometry.lanes]
            target = origin + to + k * geometry.lanes
            arena[target : target + geometry.lanes] = np.where(inside, values, -9)
    for y in range(-before[0], size[0] + beyond[0]):
        for x in range(-before[1], size[1] + beyond[1]):
            assert arena[vector(y, x)].tolist() == block(padded, y, x)
