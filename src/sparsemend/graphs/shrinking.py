"""Graphs without dead structure: channels that nothing reads, or that are constant.

Channels are removed only where the outputs stay what they are. A constant channel in front of a
convolution with zero padding has another value at the border, so that it is no part of the bias
there: if the constant is not zero, one such channel stays and stands for all of them, its weights
being the sum of theirs in proportion to the constants. Where several such convolutions read the
channels at different places of a residual stream, each has one that is not zero there, if need be
one of its own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsemend.graphs.branches import without_idle_branches
from sparsemend.graphs.constants import CHANNELWISE, through
from sparsemend.graphs.graph import Graph, Node
from sparsemend.graphs.operations import (
    Activation,
    Add,
    Affine,
    Convolution,
    Linear,
    Reshape,
)

Shape = tuple[int, ...]

# How large the constant of a channel that stands for others has to be beside the largest of them.
_LEAST_CARRIER = 0.01


def shrink(graph: Graph) -> Graph:
    """Return a graph that computes the same with fewer channels.

    Of channels that are summed or go through the same elementwise functions, all or none are
    removed; at least one stays. What depthwise convolutions, poolings and activations pass on is
    followed; grouped convolutions, concatenations and functions of PyTorch keep their channels.
    Branches whose results are constant go as a whole, the constants into what they are added to.
    """
    while True:
        smaller = _round(without_idle_branches(graph))
        if smaller is graph:
            return graph
        graph = smaller


@dataclass
class _Class:
    """Values that have the same channels, and who makes and reads them."""

    values: list[str] = field(default_factory=list)
    makers: list[Node] = field(default_factory=list)
    members: list[Node] = field(default_factory=list)
    readers: list[tuple[Node, str]] = field(default_factory=list)
    """(layer, value); behind a flattening the value is what is flattened."""
    flattened: list[Node] = field(default_factory=list)
    fixed: bool = False


def _round(graph: Graph) -> Graph:
    """Remove what can be seen at once; what it fed may be dead in the next round."""
    shapes = graph.traced_shapes()
    changed: dict[str, Node] = {}
    for each in _classes(graph, shapes):
        if each.fixed or not each.makers:
            continue
        # One class at a time changes a layer's rows, another its columns: both may be new.
        current = {n.name: changed.get(n.name, n) for n in graph}
        kept = _kept(each, current)
        if not bool(kept.channels.all()):
            _cut(each, current, shapes, kept, changed)
    if not changed:
        return graph
    return graph.with_nodes([changed.get(node.name, node) for node in graph])


def _classes(graph: Graph, shapes: Mapping[str, Shape]) -> list[_Class]:
    parent: dict[str, str] = {name: name for name in shapes}

    def find(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for node in graph:
        if _passes(node, shapes):
            for source in node.inputs:
                parent[find(source)] = find(node.name)
    classes: dict[str, _Class] = {}
    for name in shapes:
        classes.setdefault(find(name), _Class()).values.append(name)

    def of(name: str) -> _Class:
        return classes[find(name)]

    for name in (*graph.inputs, *graph.constants, *graph.outputs):
        of(name).fixed = True
    consumers = graph.consumers()
    for node in graph:
        if _passes(node, shapes):
            of(node.name).members.append(node)
            continue
        if _mixes(node, shapes):
            of(node.name).makers.append(node)
            of(node.inputs[0]).readers.append((node, node.inputs[0]))
            continue
        takers = consumers.get(node.name, [])
        whole = isinstance(node.operation, Reshape) and (
            len(shapes[node.inputs[0]]) == 4 and len(shapes[node.name]) == 2
        )
        if whole and takers and all(isinstance(taker.operation, Linear) for taker in takers):
            before = of(node.inputs[0])
            before.flattened.append(node)
            before.readers += [(taker, node.inputs[0]) for taker in takers]
        else:
            for source in node.inputs:
                of(source).fixed = True
        of(node.name).fixed = True
    return list(classes.values())


def _is_depthwise(node: Node) -> bool:
    layer = node.operation
    return (
        isinstance(layer, Convolution)
        and layer.groups == layer.weight.shape[0]
        and layer.weight.shape[1] == 1
        and layer.groups > 1
    )


def _passes(node: Node, shapes: Mapping[str, Shape]) -> bool:
    """Whether output channel k is made of input channel k alone."""
    if isinstance(node.operation, Reshape):
        before, after = shapes[node.inputs[0]], shapes[node.name]
        return before[:2] == after[:2] and set(before[2:] + after[2:]) <= {1}
    rank = len(shapes[node.name])
    if rank == 3:  # sequences [N, T, C], which linear layers make
        return isinstance(node.operation, Activation | Add)
    return (isinstance(node.operation, CHANNELWISE) and rank in (2, 4)) or _is_depthwise(node)


def _mixes(node: Node, shapes: Mapping[str, Shape]) -> bool:
    layer = node.operation
    if isinstance(layer, Linear):  # channels of [N, H, W, C] are not those of images
        return len(shapes[node.name]) in (2, 3)
    return isinstance(layer, Convolution) and layer.groups == 1


def _columns(layer: Node, channels: int) -> Tensor:
    """What a layer has for every input channel [channels, …]."""
    weight = layer.operation.tensors()["weight"]
    return weight.transpose(0, 1).reshape(channels, -1)


@dataclass(frozen=True)
class _Kept:
    """Which channels of a class stay.

    Attributes
    ----------
    channels
        Whether each stays, [C].
    constants
        Of each value, by channel; NaN where it is not constant.
    carriers
        Value in front of zero padding → the channel that stands for others that are constant there.
    """

    channels: Tensor
    constants: Mapping[str, Tensor]
    carriers: Mapping[str, int]


def _is_padded(layer: object) -> bool:
    return isinstance(layer, Convolution) and layer.padding != (0, 0)


def _kept(each: _Class, nodes: Mapping[str, Node]) -> _Kept:
    channels = nodes[each.makers[0].name].operation.tensors()["bias"].numel()
    unread = torch.ones(channels, dtype=torch.bool)
    for reader, _ in each.readers:
        unread &= ~(_columns(nodes[reader.name], channels) != 0).any(1)
    constants = _constants(each, nodes)
    known = torch.ones(channels, dtype=torch.bool)
    for _, value in each.readers:
        known &= ~constants[value].isnan()
    keep = ~(unread | known)
    padded = dict.fromkeys(v for r, v in each.readers if _is_padded(nodes[r.name].operation))
    sizes = {v: torch.where(known & ~unread, constants[v].abs(), 0.0) for v in padded}
    carriers = _carriers({value: size for value, size in sizes.items() if bool(size.any())})
    keep[list(carriers.values())] = True
    if not bool(keep.any()):
        keep[0] = True
    return _Kept(keep, constants, carriers)


def _carriers(sizes: Mapping[str, Tensor]) -> dict[str, int]:
    """For every value a channel that stands for its constant ones, as few as can be seen at once.

    Parameters
    ----------
    sizes
        Value → how large the constant of each channel [C] is, 0 where there is none; some are not.
    """
    found: dict[str, int] = {}
    while waiting := [value for value in sizes if value not in found]:
        # What is small beside others would have to have large weights.
        shares = torch.stack([sizes[value] / sizes[value].max() for value in waiting])
        stands = shares >= _LEAST_CARRIER
        least = torch.where(stands, shares, 1.0).amin(0)
        best = int((stands.sum(0) + least / 2).argmax())
        found |= {value: best for value, row in zip(waiting, stands, strict=True) if row[best]}
    return found


def _constants(each: _Class, nodes: Mapping[str, Node]) -> dict[str, Tensor]:
    """Value of every channel [C] where it is the same for all inputs and positions, else NaN."""
    found: dict[str, Tensor] = {}
    for maker in each.makers:
        layer = nodes[maker.name].operation.tensors()
        dead = ~(layer["weight"] != 0).flatten(1).any(1)
        found[maker.name] = torch.where(dead, layer["bias"], torch.nan)
    waiting = list(each.members)
    while waiting:
        ready = [node for node in waiting if all(name in found for name in node.inputs)]
        for node in ready:
            found[node.name] = through(nodes[node.name], [found[name] for name in node.inputs])
        waiting = [node for node in waiting if node.name not in found]
    return found


def _cut(
    each: _Class,
    nodes: Mapping[str, Node],
    shapes: Mapping[str, Shape],
    kept: _Kept,
    changed: dict[str, Node],
) -> None:
    """Remove channels from all that makes, passes on and reads them."""
    keep = kept.channels
    rows = keep.nonzero().reshape(-1)

    def put(node: Node, **values: object) -> None:
        now = changed.get(node.name, nodes[node.name])
        operation = dataclasses.replace(now.operation, **values)  # type: ignore[type-var]
        changed[node.name] = dataclasses.replace(now, operation=operation)

    for maker in each.makers:
        layer = nodes[maker.name].operation.tensors()
        put(maker, weight=layer["weight"][rows], bias=layer["bias"][rows])
    for member in each.members:
        operation = nodes[member.name].operation
        if isinstance(operation, Affine):
            put(member, scale=operation.scale[rows], shift=operation.shift[rows])
        elif isinstance(operation, Convolution):
            put(member, weight=operation.weight[rows], bias=operation.bias[rows],
                groups=len(rows))  # fmt: skip
        elif isinstance(operation, Reshape):
            put(member, shape=(0, len(rows), *operation.shape[2:]))
    for reader, value in each.readers:
        now = changed.get(reader.name, nodes[reader.name]).operation.tensors()
        weight = now["weight"]
        by_channel = weight.reshape(len(weight), len(keep), -1)
        constants = kept.constants[value].double()
        gone = torch.where(keep, 0.0, constants.nan_to_num(nan=0.0))
        bias = now["bias"].double()
        if value in kept.carriers and _is_padded(nodes[reader.name].operation):
            carrier = kept.carriers[value]
            share = gone / constants[carrier]
            share[carrier] = 1
            sums = torch.einsum("ock,c->ok", by_channel.double(), share)
            by_channel = by_channel.clone()
            by_channel[:, carrier] = sums.to(by_channel.dtype)
        else:
            bias = bias + by_channel.double().sum(2) @ gone
        left = by_channel[:, rows]
        left = left.reshape(len(weight), -1) if weight.dim() == 2 else left.reshape(
            len(weight), len(rows), *weight.shape[2:])  # fmt: skip
        put(reader, weight=left.contiguous(), bias=bias.float())
    for node in each.flattened:
        positions = shapes[node.name][1] // len(keep)
        put(node, shape=(0, len(rows) * positions))
