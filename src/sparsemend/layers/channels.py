"""Whose output channels are the same: those of layers that meet in a sum.

Found in the traced graph, so the names of modules play no part. A channel runs on through sums,
activations, BatchNorms, poolings and depthwise convolutions, and ends where a layer mixes it with
others. Whatever else reads it (a concatenation, a grouped convolution, an attention, the output of
the network) has to find all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sparsemend.layers.graph import Graph, Node
from sparsemend.layers.layer import Layer

# Kinds of layers whose channels can be removed.
_KINDS = frozenset({"Conv2d", "Linear"})
_ACTIVATIONS = frozenset(
    {"relu", "relu6", "hardtanh", "hardswish", "hardsigmoid", "silu", "gelu", "sigmoid", "tanh"}
)
_POOLINGS = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d", "mean"})


@dataclass
class Channels:
    """The channels of values that all have the same.

    Attributes
    ----------
    makers
        Names of the layers whose output channels they are, in execution order; depthwise
        convolutions among them, which pass them on.
    readers
        Names of the layers that mix them.
    removable
        Whether nothing needs all of them.
    """

    makers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    removable: bool = True


def find_channels(graph: Graph, layers: Sequence[Layer]) -> list[Channels]:
    """What becomes of channels in a network.

    Parameters
    ----------
    graph
        The traced forward pass; without one, nothing is found.
    layers
        All layers, those that are not pruned included.
    """
    return list(_Finder(graph, layers).found.values())


def coupled_layers(
    graph: Graph, layers: Sequence[Layer], others: Sequence[Layer] = ()
) -> list[tuple[str, ...]]:
    """Layers that have to keep the same output channels if any are to be removed.

    Parameters
    ----------
    graph
        The traced forward pass.
    layers
        Those that are pruned.
    others
        The rest. Where one of these makes the channels too, none of them can be removed.

    Returns
    -------
    list of tuple of str
        Names, two or more, in execution order; every layer in at most one of them.
    """
    rows = {layer.name: layer.rows for layer in layers}
    return [
        tuple(each.makers)
        for each in find_channels(graph, (*layers, *others))
        if each.removable
        and len(each.makers) > 1
        and len({rows.get(name) for name in each.makers}) == 1
        and each.makers[0] in rows
    ]


class _Finder:
    def __init__(self, graph: Graph, layers: Sequence[Layer]) -> None:
        self._nodes, self._consumers = graph.nodes, graph.consumers()
        self._layers: Mapping[str, Layer] = {layer.name: layer for layer in layers}
        self._parent = list(range(len(graph.nodes)))
        first: dict[str, int] = {}
        for node in graph.nodes:
            if self._passes(node):
                for source in node.inputs:
                    self._join(source, node.index)
            if node.kind == "module" and node.name in self._layers:  # it may run several times
                self._join(first.setdefault(node.name, node.index), node.index)
        self.found: dict[int, Channels] = {}
        for node in graph.nodes:
            self._note(node)

    def _note(self, node: Node) -> None:
        own = self._of(node.index)
        if node.kind == "module" and node.name in self._layers:
            if node.name not in own.makers:
                own.makers.append(node.name)
            if _mixes(self._layers[node.name], node):
                self._read(node, node.name)
            elif not self._passes(node):
                self._needs_all(node)
        elif self._is_flattened(node):
            for taker in self._consumers[node.index]:
                self._read(node, taker.name)
            own.removable = False
        elif not self._passes(node):
            self._needs_all(node)

    def _read(self, node: Node, reader: str) -> None:
        for source in node.inputs:
            readers = self._of(source).readers
            if reader not in readers:
                readers.append(reader)

    def _needs_all(self, node: Node) -> None:
        for index in (*node.inputs, node.index):
            self._of(index).removable = False

    def _passes(self, node: Node) -> bool:
        """Whether output channel k is made of channel k of its inputs alone."""
        if not node.inputs:
            return False
        before, rank = self._nodes[node.inputs[0]].shape, len(node.shape)
        if node.kind == "module":
            layer = self._layers.get(node.name)
            through = node.per_channel if layer is None else _is_depthwise(layer)
            return through and rank in (2, 4)
        name = node.name.rstrip("_")
        if node.is_sum:
            sizes = {self._nodes[source].shape for source in node.inputs}
            return len(node.inputs) == 2 and sizes == {node.shape} and rank in (2, 3, 4)
        if name in _ACTIVATIONS or node.is_idle:
            return before == node.shape and rank in (2, 3, 4)
        if name in _POOLINGS:
            return len(before) == 4 and rank in (2, 4) and before[:2] == node.shape[:2]
        flat = node.is_reshape and set(before[2:] + node.shape[2:]) <= {1}
        return flat and before[:2] == node.shape[:2] and rank in (2, 4)

    def _is_flattened(self, node: Node) -> bool:
        """Whether images become rows that linear layers read."""
        takers = self._consumers.get(node.index, [])
        if not (node.is_reshape and takers and not self._passes(node)):
            return False
        linear = all(x.name in self._layers and self._layers[x.name].kind == "Linear"
                     for x in takers)  # fmt: skip
        return linear and len(node.shape) == 2 and len(self._nodes[node.inputs[0]].shape) == 4

    def _of(self, index: int) -> Channels:
        return self.found.setdefault(self._root(index), Channels())

    def _root(self, index: int) -> int:
        while self._parent[index] != index:
            index = self._parent[index]
        return index

    def _join(self, one: int, other: int) -> None:
        self._parent[self._root(other)] = self._root(one)


def _is_depthwise(layer: Layer) -> bool:
    return layer.kind in _KINDS and 1 < layer.groups == layer.rows == layer.input_channels


def _mixes(layer: Layer, node: Node) -> bool:
    """Whether a layer is a matrix on the channels of its input."""
    known = layer.kind in _KINDS and layer.groups == 1
    return known and len(node.shape) in ((4,) if layer.is_convolution else (2, 3))
