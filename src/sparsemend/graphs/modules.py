"""Graphs as plain PyTorch modules, which need nothing of this library."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from sparsemend.graphs.graph import Graph, Node
from sparsemend.graphs.operations import (
    ACTIVATIONS,
    Activation,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    GlobalAverage,
    Item,
    Linear,
    MaxPool,
    Operation,
    Reshape,
    Softmax,
    Torch,
    filled,
    operator_of,
)

# What modules call where it is not the function itself, and with which keywords.
_CALLED: Mapping[str, tuple[Callable[..., Tensor], dict[str, Any]]] = {
    "gelu_tanh": (F.gelu, {"approximate": "tanh"}),
}


def to_module(graph: Graph) -> fx.GraphModule:
    """A module of PyTorch's own layers and functions that computes what a graph does.

    Layers have their names, with underscores for dots. One output is a tensor, several a tuple.
    """
    return _Builder(graph).module()


class _Builder:
    def __init__(self, graph: Graph) -> None:
        self._source = graph
        self._root = nn.Module()
        self._graph = fx.Graph()
        self._values: dict[str, fx.Node] = {}

    def module(self) -> fx.GraphModule:
        for name in self._source.inputs:
            self._values[name] = self._graph.placeholder(_plain(name))
        for name, tensor in self._source.constants.items():
            self._values[name] = self._buffer(_plain(name), tensor)
        for node in self._source:
            inputs = [self._values[name] for name in node.inputs]
            self._values[node.name] = self._node(node, node.operation, inputs)
        outputs = [self._values[name] for name in self._source.outputs]
        self._graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        self._graph.lint()
        return fx.GraphModule(self._root, self._graph, "Network").eval()

    def _buffer(self, name: str, tensor: Tensor) -> fx.Node:
        self._root.register_buffer(name, tensor)
        return self._graph.get_attr(name)

    def _layer(self, name: str, layer: nn.Conv2d | nn.Linear, operation: Any, x: Any) -> fx.Node:
        layer.weight = nn.Parameter(operation.weight.clone(), requires_grad=False)
        layer.bias = nn.Parameter(operation.bias.clone(), requires_grad=False)
        self._root.add_module(name, layer)
        return self._graph.call_module(name, (x,))

    def _node(self, node: Node, operation: Operation, inputs: list[fx.Node]) -> fx.Node:
        call = self._graph.call_function
        name = _plain(node.name)
        match operation:
            case Convolution():
                rows, columns = operation.weight.shape[:2]
                convolution = nn.Conv2d(
                    columns * operation.groups, rows, _kernel(operation.weight),
                    operation.stride, operation.padding, operation.dilation, operation.groups,
                    device="meta",
                )  # fmt: skip
                return self._layer(name, convolution, operation, inputs[0])
            case Linear():
                rows, columns = operation.weight.shape
                linear = nn.Linear(columns, rows, device="meta")
                return self._layer(name, linear, operation, inputs[0])
            case Affine():
                shape = (-1, 1, 1)
                scale = self._buffer(f"{name}_scale", operation.scale.float().view(shape))
                shift = self._buffer(f"{name}_shift", operation.shift.float().view(shape))
                return call(operator.add, (call(operator.mul, (inputs[0], scale)), shift))
            case Activation():
                function, keywords = _called(operation.function)
                return call(function, (inputs[0],), keywords)
            case Add():
                return call(operator.add, tuple(inputs))
            case Concatenate():
                return call(torch.cat, (inputs, operation.dimension))
            case MaxPool():
                return call(F.max_pool2d, (inputs[0], operation.kernel, operation.stride,
                            operation.padding, operation.dilation, operation.ceil))  # fmt: skip
            case AveragePool():
                return call(F.avg_pool2d, (inputs[0], operation.kernel, operation.stride,
                            operation.padding, operation.ceil,
                            operation.count_padding))  # fmt: skip
            case GlobalAverage():
                return call(torch.mean, (inputs[0], (2, 3), operation.keep))
            case Softmax():
                return call(torch.softmax, (inputs[0], operation.dimension))
            case Reshape():
                return call(torch.reshape, (inputs[0], self._shape(operation.shape, inputs[0])))
            case Torch():
                arguments = filled(operation.arguments, inputs)
                keywords = {key: filled(value, inputs) for key, value in operation.keywords}
                return call(operator_of(operation.target), tuple(arguments), keywords)
            case Item():
                return call(operator.getitem, (inputs[0], operation.index))
        raise NotImplementedError(operation)

    def _shape(self, shape: tuple[int, ...], x: fx.Node) -> tuple[Any, ...]:
        """Sizes of a reshape; of a batch that is left as it is PyTorch finds the size itself."""
        if 0 in shape[:1] and -1 not in shape and 0 not in shape[1:]:
            return (-1, *shape[1:])
        return tuple(
            self._graph.call_method("size", (x, i)) if size == 0 else size
            for i, size in enumerate(shape)
        )


def _called(activation: str) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    return _CALLED.get(activation, (ACTIVATIONS[activation], {}))


def _kernel(weight: Tensor) -> tuple[int, int]:
    return (weight.shape[2], weight.shape[3])


def _plain(name: str) -> str:
    """A name that can be an attribute."""
    return "".join(letter if letter.isalnum() else "_" for letter in f"m_{name}").removeprefix("m_")
