"""Directions in which an allocation may move: pure functions of layers and densities.

An allocation is a vector of log densities, one per layer. Moving along a direction changes
densities by factors; the budget is restored by rescaling, so only ratios between layers count.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from sparsemend.allocation import round_to_budget
from sparsemend.layers import CLASSES, LayerSet, Surroundings, surroundings

Array = NDArray[np.float64]


def log_densities(counts: Sequence[int], sizes: Sequence[int]) -> Array:
    """log(count / size) of every layer, [L]; a count of 0 stands as half a weight."""
    kept = np.maximum(np.asarray(counts, dtype=np.float64), 0.5)
    values: Array = np.log(kept / np.asarray(sizes, dtype=np.float64))
    return values


def counts_of(log_density: Array, sizes: Sequence[int], keep: int) -> tuple[int, ...]:
    """Exact counts of ``keep`` weights in all, in proportion to the densities, capped at dense.

    Parameters
    ----------
    log_density
        Log densities up to a common constant, [L].
    sizes
        Number of weights of each layer.
    keep
        Total number of weights to keep.
    """
    relative = np.exp(log_density - log_density.max())
    return round_to_budget(relative.tolist(), sizes, keep)


def groups(layers: LayerSet) -> dict[str, tuple[int, ...]]:
    """Name → positions of layers that may gain or lose density together.

    First and last layer, projections, depthwise convolutions; layers that feed a residual sum;
    convolutions on one grid of positions; where there are no such grids, thirds of the depth.
    Groups of no layer, of all layers, or equal to an earlier one are left out.
    """
    place = {layer.name: position for position, layer in enumerate(layers)}
    members = {name: [place[x] for x in find(layers)] for name, find in CLASSES.items()}
    around = surroundings(layers)
    members["before sums"] = [place[name] for name in place if _feeds_sum(around.get(name))]
    shapes = {node.name: node.shape for node in layers.graph.nodes if node.kind == "module"}
    for position, layer in enumerate(layers):
        grid = shapes.get(layer.name, ())[2:] if layer.is_convolution else ()
        third = ("first", "middle", "last")[3 * position // len(layers)]
        name = f"{'×'.join(map(str, grid))} grid" if grid else f"{third} third"
        members.setdefault(name, []).append(position)
    found: dict[str, tuple[int, ...]] = {}
    for name, positions in members.items():
        chosen = tuple(positions)
        if 0 < len(chosen) < len(layers) and chosen not in found.values():
            found[name] = chosen
    return found


def _feeds_sum(around: Surroundings | None) -> bool:
    return around is not None and around.shortcut is not None


def moves(
    layers: LayerSet, current: Array, counts: Sequence[int], anchors: Mapping[str, Array]
) -> dict[str, Array]:
    """Name → direction [L] in log density, in the order in which they are worth trying.

    Towards other allocations, then groups of layers, then single layers, the largest first.

    Parameters
    ----------
    layers
        The layers.
    current
        Log densities of the present allocation, [L].
    counts
        Its kept counts: large layers come first.
    anchors
        Name → log densities of other allocations, the most promising first.
    """
    found: dict[str, Array] = {}
    for name, other in anchors.items():
        if np.abs(other - current).max() > 1e-3:
            found[f"towards {name}"] = other - current
    together = groups(layers)
    for name, positions in together.items():
        found[name] = np.zeros(len(layers))
        found[name][list(positions)] = 1.0
    alone = {positions[0] for positions in together.values() if len(positions) == 1}
    for position in sorted(range(len(layers)), key=lambda i: (-counts[i], i)):
        if position not in alone:
            name = layers[position].name
            found[name] = np.zeros(len(layers))
            found[name][position] = 1.0
    return found
