"""BatchNorms behind convolutions and linear layers become part of their weights."""

from __future__ import annotations

import dataclasses

from sparsemend.graphs.graph import Graph, Node
from sparsemend.graphs.operations import Affine, Convolution, Linear, Operation


def fold(graph: Graph) -> Graph:
    """Return the graph with every affine map that directly follows a layer in the layer.

    The products are taken in float64 and rounded once. An affine map in front of a layer, or
    behind one whose output is used elsewhere too, stays.
    """
    consumers = graph.consumers()
    done: dict[str, Node] = {}
    renamed: dict[str, str] = {}
    for node in graph:
        moved = dataclasses.replace(
            node, inputs=tuple(renamed.get(name, name) for name in node.inputs)
        )
        before = done.get(moved.inputs[0]) if moved.inputs else None
        merged = None
        if before is not None and graph.sole_consumer(node.inputs[0], consumers) is node:
            merged = _merged(before.operation, node.operation)
        if before is not None and merged is not None:
            done[before.name] = dataclasses.replace(before, operation=merged)
            renamed[node.name] = before.name
        else:
            done[node.name] = moved
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return dataclasses.replace(graph, nodes=tuple(map(_rounded, done.values())), outputs=outputs)


def _rounded(node: Node) -> Node:
    """An affine map that stays, in float32 like all others."""
    if not isinstance(node.operation, Affine):
        return node
    affine = Affine(node.operation.scale.float(), node.operation.shift.float())
    return dataclasses.replace(node, operation=affine)


def _merged(layer: Operation, affine: Operation) -> Operation | None:
    """Both as one layer; None where they are no layer and affine map of the same channels."""
    if not (isinstance(layer, Convolution | Linear) and isinstance(affine, Affine)):
        return None
    if layer.bias.shape != affine.scale.shape:
        return None
    scale = affine.scale.double()
    weight = layer.weight.double() * scale.view(-1, *(1,) * (layer.weight.dim() - 1))
    bias = layer.bias.double() * scale + affine.shift.double()
    return dataclasses.replace(
        layer, weight=weight.to(layer.weight.dtype), bias=bias.to(layer.bias.dtype)
    )
