"""What happens to a layer's output: an activation, or a sum with a shortcut, then one.

Found in the traced graph, so the names of modules play no part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from sparsemend.layers.discovery import LayerSet
from sparsemend.layers.graph import Node

_SUMS = frozenset({"add", "add_", "__add__", "__iadd__", "__radd__"})
_RELU = frozenset({"relu", "relu_"})


@dataclass(frozen=True)
class Shortcut:
    """The other operand of the sum that a layer feeds.

    Attributes
    ----------
    source
        The layer whose input is where the shortcut starts.
    projection
        The layer on the shortcut, with its normalisation if it has one; None for the identity.
    """

    source: str
    projection: str | None


@dataclass(frozen=True)
class Surroundings:
    """What follows a layer.

    Attributes
    ----------
    relu
        Whether the output, normalised and joined, goes to a ReLU and nowhere else.
    shortcut
        Where the sum that the layer feeds can be corrected by this layer.
    ready_at
        The earlier layer that has the same input, so that this layer can be repaired there
        already; None if there is none.
    final
        Whether the output is the network's.
    pooled
        Whether the output lies on the grid of positions that is averaged before a final
        linear layer, so that its mean over positions matters most.
    """

    relu: bool = False
    shortcut: Shortcut | None = None
    ready_at: str | None = None
    final: bool = False
    pooled: bool = False


def surroundings(layers: LayerSet) -> dict[str, Surroundings]:
    """Layer name → what follows it, for every layer that runs exactly once."""
    return _Finder(layers).find()


class _Finder:
    def __init__(self, layers: LayerSet) -> None:
        self._layers = layers
        self._graph = layers.graph
        self._consumers = layers.graph.consumers()
        once = {layer.name for layer in layers if layer.calls == 1}
        self._node = {
            node.name: node
            for node in layers.graph.nodes
            if node.kind == "module" and node.name in once
        }
        self._by_index = {node.index: name for name, node in self._node.items()}
        # Where a tensor is first seen as a layer's input.
        self._first_input: dict[int, str] = {}
        for name, node in sorted(self._node.items(), key=lambda item: item[1].index):
            if node.inputs:
                self._first_input.setdefault(node.inputs[0], name)

    def find(self) -> dict[str, Surroundings]:
        ready = {name: self._ready_at(node) for name, node in self._node.items()}
        return {name: self._one(name, ready) for name in self._node}

    def _ready_at(self, node: Node) -> str | None:
        first = self._first_input.get(node.inputs[0]) if node.inputs else None
        return None if first == node.name else first

    def _one(self, name: str, ready: Mapping[str, str | None]) -> Surroundings:
        tail = self._tail(name)
        following = self._graph.sole_consumer(tail, self._consumers)
        final = following is not None and (following.kind, following.name) == ("function", "output")
        shortcut, joined = None, False
        if following is not None and following.kind == "function" and following.name in _SUMS:
            joined = True
            shortcut = self._shortcut(name, tail, following, ready)
            following = self._graph.sole_consumer(following.index, self._consumers)
        relu = following is not None and following.name in _RELU
        # Without the shortcut the activation sees more than this layer.
        relu = relu and (not joined or shortcut is not None)
        return Surroundings(relu, shortcut, ready[name], final, self._is_pooled(name))

    def _is_pooled(self, name: str) -> bool:
        last = self._layers[-1]
        grids = [
            self._node[x.name].shape[2:]
            for x in self._layers
            if x.is_convolution and x.name in self._node
        ]
        if last.is_convolution or last.name not in self._node or not grids:
            return False
        averaged = math.prod(grids[-1]) > 1 and len(self._node[last.name].shape) == 2
        flat = self._layers[last.name].fan_in == self._last_channels()
        own = self._layers[name].is_convolution and self._node[name].shape[2:] == grids[-1]
        return averaged and flat and own

    def _last_channels(self) -> int:
        """Channels of the last convolution: a final layer of this width sees averages of them."""
        return next(x.rows for x in reversed(self._layers) if x.is_convolution)

    def _tail(self, name: str) -> int:
        """The node that carries the layer's output on: its own, or that of its norm."""
        index = self._node[name].index
        norm = self._layers[name].norm
        if norm is None:
            return index
        return next(n.index for n in self._graph.nodes if n.kind == "module" and n.name == norm)

    def _shortcut(
        self, name: str, tail: int, join: Node, ready: Mapping[str, str | None]
    ) -> Shortcut | None:
        others = [index for index in join.inputs if index != tail]
        if len(join.inputs) != 2 or len(others) != 1:
            return None
        other = others[0]
        shapes = {self._graph.nodes[index].shape for index in (tail, other)}
        if shapes != {join.shape}:  # broadcast: not every output meets a value of its own
            return None
        here = self._node[name].index
        source = self._first_input.get(other)
        if source is not None and self._node[source].index < here:
            return Shortcut(source, None)
        projection = next((p for p in self._node if p != name and self._tail(p) == other), None)
        if projection is None or ready[name] is not None:
            return None
        # The projection is repaired before this layer: where its input first appears, or
        # because it runs earlier.
        start = ready[projection] or projection
        return Shortcut(start, projection) if self._node[start].index < here else None
