"""Directions in which an allocation may move: pure functions of layers and densities.

An allocation is a vector of log densities, one per layer. Moving along a direction changes
densities by factors; the budget is restored by rescaling, so only ratios between layers count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsemend.allocation import Quota, round_to_budget
from sparsemend.layers import CLASSES, LayerSet, Surroundings, surroundings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Move:
    """A way to change an allocation.

    Attributes
    ----------
    kind
        ``"group"`` or ``"layer"``.
    name
        Of the group or the layer.
    direction
        Change of the log densities per unit of step, [L].
    """

    kind: str
    name: str
    direction: Array

    @property
    def key(self) -> tuple[str, str]:
        """What tells moves apart: a layer may be called like a group."""
        return self.kind, self.name


def log_densities(counts: Sequence[int], sizes: Sequence[int]) -> Array:
    """log(count / size) of every layer, [L]; a count of 0 stands as half a weight."""
    kept = np.maximum(np.asarray(counts, dtype=np.float64), 0.5)
    values: Array = np.log(kept / np.asarray(sizes, dtype=np.float64))
    return values


def counts_of(log_density: Array, quota: Quota) -> tuple[int, ...]:
    """Counts that use up a quota, in proportion to the densities, capped at dense.

    Parameters
    ----------
    log_density
        Log densities up to a common constant, [L].
    quota
        What the layers may keep.
    """
    relative = np.exp(log_density - log_density.max()).tolist()
    return quota.fill(lambda keep: round_to_budget(relative, quota.sizes, keep))


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


def moves(layers: LayerSet, counts: Sequence[int]) -> list[Move]:
    """Ways to change an allocation, in the order in which they are worth trying.

    Groups of layers, then single layers, the largest first. Layers that all others oppose (a group
    of all but these) are moved once.

    Parameters
    ----------
    layers
        The layers.
    counts
        Kept counts of the present allocation: large layers come first.
    """
    largest = sorted(range(len(layers)), key=lambda i: (-counts[i], i))
    together = [("group", name, positions) for name, positions in groups(layers).items()]
    alone = [("layer", layers[i].name, (i,)) for i in largest]
    found = list[Move]()
    seen = set[frozenset[tuple[int, ...]]]()
    for kind, name, positions in (*together, *alone):
        others = tuple(i for i in range(len(layers)) if i not in positions)
        # Rescaled to the budget, more for some is less for the others.
        sides = frozenset({positions, others})
        if others and sides not in seen:
            seen.add(sides)
            direction = np.zeros(len(layers))
            direction[list(positions)] = 1.0
            found.append(Move(kind, name, direction))
    return found
