"""What happens to a layer's output: an activation, or a sum with a shortcut, then one.

Found in the traced graph, so the names of modules play no part. A shortcut may be the input of a
block, as in residual networks, or the stream that runs past all of them: x + f(norm(x)).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from sparsemend.layers.discovery import LayerSet
from sparsemend.layers.graph import Node
from sparsemend.layers.matrices import channel_shape
from sparsemend.layers.operand import Operand

_RELU = frozenset({"relu", "relu_"})


@dataclass(frozen=True)
class Path:
    """How a layer's output, or that of its normalisation, gets to a sum: channels stay channels.

    Attributes
    ----------
    scale
        What it is multiplied with on the way, one value for every channel, or one for all.
    order
        Which dimension of it each dimension of the sum is; empty where they are in order.
    """

    scale: tuple[Operand | float, ...] = ()
    order: tuple[int, ...] = ()


@dataclass(frozen=True)
class Addend:
    """What is added to a layer's output.

    Attributes
    ----------
    source
        The layer whose input, or the module whose first argument, is where it starts.
    projection
        The layer on it, with its normalisation if it has one; None for the identity.
    path
        How that layer's output gets to the sum.
    """

    source: str
    projection: str | None = None
    path: Path = Path()


@dataclass(frozen=True)
class Shortcut:
    """The rest of the sum that a layer feeds, all of it known before the layer runs.

    Attributes
    ----------
    addends
        What is added to the layer's output.
    path
        How that output gets to the sum.
    """

    addends: tuple[Addend, ...]
    path: Path = Path()


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


def in_passing(layers: LayerSet, modules: Iterable[str]) -> list[str]:
    """Names of layers and of modules with them, in the order in which a run comes by."""
    graph, wanted = layers.graph, set(modules)
    places = {node.name: node.index for node in graph.nodes if node.kind == "module"}
    waiting = sorted((place, path) for path, (_, place) in graph.entries.items() if path in wanted)
    order: list[str] = []
    for layer in layers:
        while waiting and waiting[0][0] <= places.get(layer.name, -1):
            order.append(waiting.pop(0)[1])
        order.append(layer.name)
    return [*order, *(path for _, path in waiting)]


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
        self._modules = {x.name: x.index for x in layers.graph.nodes if x.kind == "module"}
        # Where a tensor is first seen as a layer's input.
        self._first_input: dict[int, str] = {}
        for name, node in sorted(self._node.items(), key=lambda item: item[1].index):
            if node.inputs:
                self._first_input.setdefault(node.inputs[0], name)
        # Where a tensor is seen as a module's first argument, and how many nodes are before.
        self._entries: dict[int, list[tuple[int, str]]] = {}
        for path, (source, place) in layers.graph.entries.items():
            if path not in layers.names:
                self._entries.setdefault(source, []).append((place, path))
        # Node → the layer whose output it hands on, channel by channel, and how.
        self._carried = {
            index: (name, path) for name in self._node for index, path in self._way(name)
        }

    def find(self) -> dict[str, Surroundings]:
        ready = {name: self._ready_at(node) for name, node in self._node.items()}
        return {name: self._one(name, ready) for name in self._node}

    def _ready_at(self, node: Node) -> str | None:
        first = self._first_input.get(node.inputs[0]) if node.inputs else None
        return None if first == node.name else first

    def _one(self, name: str, ready: Mapping[str, str | None]) -> Surroundings:
        following = self._graph.sole_consumer(self._tail(name), self._consumers)
        final = following is not None and (following.kind, following.name) == ("function", "output")
        joined = following is not None and following.is_sum
        shortcut, last = self._shortcut(name, ready)
        if shortcut is not None:
            following = self._graph.sole_consumer(last, self._consumers)
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
        norm = self._layers[name].norm
        return self._node[name].index if norm is None else self._modules[norm]

    def _way(self, name: str) -> Iterator[tuple[int, Path]]:
        """The nodes that hand a layer's output on and alone see it, the first being its tail."""
        node = self._graph.nodes[self._tail(name)]
        path = Path()
        axis = len(node.shape) - len(channel_shape(self._layers[name]))
        while True:
            yield node.index, path
            consumers = self._consumers.get(node.index, [])
            if len(consumers) != 1:
                return
            following = consumers[0]
            same = following.shape == node.shape
            if same and following.factor is not None:
                if not _is_per_channel(following.factor, axis, node.shape):
                    return
                path = replace(path, scale=(*path.scale, following.factor))
            elif following.order and not path.order:
                path = replace(path, order=following.order)
                axis = following.order.index(axis)
            elif following.is_reshape and not same:
                # The last dimension stays as it is where no other has come behind it.
                last = axis == len(node.shape) - 1 and not path.order
                if not last or following.shape[-1:] != node.shape[-1:]:
                    return
                axis = len(following.shape) - 1
            elif not (same and (following.is_idle or following.is_reshape)):
                return
            node = following

    def _shortcut(self, name: str, ready: Mapping[str, str | None]) -> tuple[Shortcut | None, int]:
        """What else is in the sum that a layer feeds, and the sum's node."""
        *_, (index, path) = self._way(name)
        addends: list[Addend] = []
        while True:
            join = next(iter(self._consumers.get(index, [])), None)
            if join is None or len(self._consumers[index]) != 1:
                break
            if join.is_idle:
                index = join.index
                continue
            others = [source for source in join.inputs if source != index]
            if not join.is_sum or len(join.inputs) != 2 or len(others) != 1:
                break
            shapes = {self._graph.nodes[operand].shape for operand in (index, others[0])}
            if shapes != {join.shape}:  # broadcast: not every output meets a value of its own
                break
            found = self._addends(others[0], name, path, ready)
            if found is None:
                break
            addends += found
            index = join.index
        return (Shortcut(tuple(addends), path) if addends else None), index

    def _addends(
        self, operand: int, name: str, path: Path, ready: Mapping[str, str | None]
    ) -> list[Addend] | None:
        """What an operand of the sum consists of; None unless all is known before the layer runs.

        Known are inputs of layers and of modules, outputs of layers that are repaired by then,
        and sums of these.
        """
        here = self._node[name].index
        if not any(
            x.in_place and not x.is_idle and x.inputs[:1] == (operand,) and x.index < here
            for x in self._consumers.get(operand, [])
        ):
            source = self._first_input.get(operand)
            if source is not None and self._node[source].index < here:
                return [Addend(source)]
            place = self._node[ready[name] or name].index  # a projection may be repaired there
            passed = [x for x in self._entries.get(operand, []) if x[0] <= place]
            if passed:  # the last, so that it is held for the shortest time
                return [Addend(max(passed)[1])]
        projection, way = self._carried.get(operand, (name, Path()))
        if projection != name:
            # It is repaired before this layer: where its input first appears, or because it runs
            # earlier.
            start = ready[projection] or projection
            known = ready[name] is None and self._node[start].index < here
            return [Addend(start, projection, way)] if known and way.order == path.order else None
        node = self._graph.nodes[operand]
        if node.is_idle and self._graph.nodes[node.inputs[0]].shape == node.shape:
            return self._addends(node.inputs[0], name, path, ready)
        if node.is_sum and len(set(node.inputs)) == 2:
            if any(self._graph.nodes[x].shape != node.shape for x in node.inputs):
                return None
            parts = [self._addends(x, name, path, ready) for x in node.inputs]
            return None if None in parts else [x for part in parts for x in part or ()]
        return None


def _is_per_channel(factor: Operand | float, axis: int, shape: tuple[int, ...]) -> bool:
    """Whether a factor is one number, or one for each channel of outputs of this shape."""
    if isinstance(factor, float):
        return True
    if math.prod(factor.shape) == 1:
        return True
    padded = (1,) * (len(shape) - len(factor.shape)) + factor.shape
    return padded == tuple(n if d == axis else 1 for d, n in enumerate(shape))
