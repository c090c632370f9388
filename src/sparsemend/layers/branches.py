"""Residual branches: layers that a network can do without, since a shortcut runs beside them.

Found in the traced graph, so the names of modules play no part.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsemend.layers.discovery import LayerSet
from sparsemend.layers.graph import Node

# Layers on the way to a node by the shortest path, where no path leads there.
_NEVER = 1 << 30


@dataclass(frozen=True)
class Branch:
    """A part of a network that ends in a sum and feeds nothing else.

    Attributes
    ----------
    layers
        Names of its layers, in execution order.
    """

    layers: tuple[str, ...]


def residual_branches(layers: LayerSet) -> tuple[Branch, ...]:
    """The branches that can be given up whole, in execution order of their first layers.

    An operand of a sum is one if the other operand gets there from where the two part through
    fewer layers: past none of them by an identity, or through a projection. Nothing but the sum
    may see what is computed in between, all of whose layers are prunable and run once.

    Parameters
    ----------
    layers
        From :func:`discover` with a batch.
    """
    finder = _Finder(layers)
    found: dict[tuple[str, ...], Branch] = {}
    for node in layers.graph.nodes:
        for branch in finder.ending_in(node):
            found.setdefault(branch.layers, branch)
    order = {layer.name: layer.order for layer in layers}
    return tuple(sorted(found.values(), key=lambda branch: order[branch.layers[0]]))


class _Finder:
    def __init__(self, layers: LayerSet) -> None:
        self._nodes, self._consumers = layers.graph.nodes, layers.graph.consumers()
        # Of every node the set of those that it depends on and itself, as the bits of a number.
        self._past: list[int] = []
        for node in self._nodes:
            past = 1 << node.index
            for source in node.inputs:
                past |= self._past[source]
            self._past.append(past)
        everything = {layer.name for layer in (*layers, *layers.others)}
        self._weighted = {
            n.index for n in self._nodes if n.kind == "module" and n.name in everything
        }
        self._free = {layer.name for layer in layers if layer.calls == 1}

    def ending_in(self, join: Node) -> list[Branch]:
        if not join.is_sum or len(set(join.inputs)) != 2:
            return []
        if any(self._nodes[source].shape != join.shape for source in join.inputs):
            return []
        return [
            branch
            for operand, other in (join.inputs, join.inputs[::-1])
            if (branch := self._branch(operand, other, join)) is not None
        ]

    def _branch(self, operand: int, other: int, join: Node) -> Branch | None:
        common = self._past[operand] & self._past[other]
        own = [n for n in self._nodes if self._past[operand] & ~self._past[other] & 1 << n.index]
        weighted = [node for node in own if node.index in self._weighted]
        if not weighted or not common or any(node.name not in self._free for node in weighted):
            return None
        inside = {node.index for node in own} | {join.index}
        if any(x.index not in inside for node in own for x in self._consumers.get(node.index, [])):
            return None
        if self._layers_past(other, common) >= len(weighted):
            return None
        return Branch(tuple(node.name for node in weighted))

    def _layers_past(self, end: int, common: int) -> int:
        """Fewest layers on the way to a node from what both operands of a sum depend on."""
        fewest: dict[int, int] = {}
        for node in self._nodes[: end + 1]:
            if common & 1 << node.index:
                # Only what the other operand sees too: from an earlier one the way is longer.
                fewest[node.index] = 0
            elif self._past[end] & 1 << node.index:
                here = min((fewest[source] for source in node.inputs), default=_NEVER)
                fewest[node.index] = here + (node.index in self._weighted)
        return fewest[end]
