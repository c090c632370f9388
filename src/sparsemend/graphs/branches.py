"""Branches that no input passes through: what they add is known, so they need not run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor

from sparsemend.graphs.constants import CHANNELWISE, through
from sparsemend.graphs.folding import fold
from sparsemend.graphs.graph import Graph, Node
from sparsemend.graphs.operations import Add, Affine, Convolution, Linear


def without_idle_branches(graph: Graph) -> Graph:
    """Return the graph without branches whose results are the same for all inputs.

    Such a branch ends in a layer without weights: what it adds to a sum is a number for every
    channel, at every position. That becomes part of the layer whose output it is added to, or an
    affine map where there is none.

    Returns
    -------
    Graph
        The graph itself where there is no such branch.
    """
    if not any(_is_idle(node) for node in graph):
        return graph
    shapes = graph.traced_shapes()
    known: dict[str, Tensor] = {}
    nodes: list[Node] = []
    for node in graph:
        constant = _constant(node, known, len(shapes[node.name]))
        if constant is not None:
            known[node.name] = constant
        nodes.append(node if constant is not None else _added(node, known, shapes))
    if all(new is old for new, old in zip(nodes, graph, strict=True)):
        return graph
    return fold(graph.with_nodes(nodes))


def _is_idle(node: Node) -> bool:
    """Whether it is a layer without weights."""
    operation = node.operation
    return isinstance(operation, Convolution | Linear) and not operation.weight.any()


def _constant(node: Node, known: Mapping[str, Tensor], rank: int) -> Tensor | None:
    """What a node gives, [C], if that is the same whatever the network is given."""
    operation = node.operation
    if isinstance(operation, Convolution | Linear):
        channels_first = isinstance(operation, Convolution) or rank == 2
        return operation.bias if channels_first and _is_idle(node) else None
    if not isinstance(operation, CHANNELWISE) or rank not in (2, 4):
        return None
    if any(name not in known for name in node.inputs):
        return None
    found = through(node, [known[name] for name in node.inputs])
    return None if found.isnan().any() else found


def _added(node: Node, known: Mapping[str, Tensor], shapes: Mapping[str, tuple[int, ...]]) -> Node:
    """A sum with a constant, as an affine map of the other operand; any other node as it is."""
    live = [name for name in node.inputs if name not in known]
    idle = [name for name in node.inputs if name in known]
    if not isinstance(node.operation, Add) or (len(live), len(idle)) != (1, 1):
        return node
    if shapes[live[0]] != shapes[node.name]:  # every position of the constant has its own
        return node
    shift = known[idle[0]]
    return dataclasses.replace(
        node, operation=Affine(torch.ones_like(shift), shift), inputs=(live[0],)
    )
