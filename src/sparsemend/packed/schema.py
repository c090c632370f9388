"""Graphs as JSON, and JSON as graphs: nothing that a file says is run unless it is known here."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.graphs import Graph, Node
from sparsemend.graphs.operations import ACTIVATIONS, OPERATIONS, Slot, Torch, operator_of

_LARGEST = 2**31
_DTYPES = {str(dtype): dtype for dtype in (torch.float32, torch.int64, torch.int32, torch.bool)}
# Of inputs that are no floating-point numbers, such as tokens.
_INPUTS = {
    str(dtype): dtype
    for dtype in (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool)
}
_SCALARS = (int, float, bool, str, type(None))


def graph_to_json(graph: Graph, put: Callable[[Tensor], int]) -> dict[str, Any]:
    """A graph as plain data; ``put`` stores a tensor and gives its number.

    Raises
    ------
    SparsemendError
        If the graph calls a function of PyTorch that files may not have.
    """
    nodes = []
    for node in graph:
        fields = {
            field.name: _to_json(node, getattr(node.operation, field.name), put)
            for field in dataclasses.fields(node.operation)  # type: ignore[arg-type]
        }
        if isinstance(node.operation, Torch) and not _is_allowed(node.operation.target):
            raise _unknown(node.operation.target)
        nodes.append([node.name, node.operation.label, list(node.inputs), fields])
    return {
        "inputs": {name: list(shape) for name, shape in graph.inputs.items()},
        "types": {n: str(t) for n, t in graph.types.items() if str(t) in _INPUTS},
        "nodes": nodes,
        "outputs": list(graph.outputs),
        "constants": {name: put(value) for name, value in graph.constants.items()},
    }


def _to_json(node: Node, value: Any, put: Callable[[Tensor], int]) -> Any:
    if isinstance(value, Tensor):
        return {"tensor": put(value)}
    if isinstance(value, Slot):
        return {"slot": value.index}
    if isinstance(value, torch.dtype) and str(value) in _DTYPES:
        return {"dtype": str(value)}
    if isinstance(value, tuple):
        return [_to_json(node, each, put) for each in value]
    if isinstance(value, _SCALARS):
        return value
    raise _unknown(f"{node}: {value!r}")


def _unknown(what: str) -> SparsemendError:
    return SparsemendError(
        "a packed graph cannot hold this function of PyTorch",
        what,
        fix="pack the weights alone (without an example): they load into the network",
    )


def _is_allowed(target: str) -> bool:
    """Whether a file may name an operator: one that computes new tensors of tensors, no more."""
    try:
        operator = operator_of(target)
        tags, schema = operator.tags, operator._schema
    except (AttributeError, RuntimeError):
        return False
    if not target.startswith("aten.") or schema.is_mutable:
        return False
    return torch.Tag.core in tags or target in _MORE


# What networks call in inference that is not among PyTorch's core operators.
_MORE = frozenset(
    {
        "aten._scaled_dot_product_flash_attention_for_cpu.default",
        "aten._transformer_encoder_layer_fwd.default",
        "aten._native_multi_head_attention.default",
        "aten._unsafe_view.default",
        "aten.baddbmm.default",
        "aten.chunk.default",
        "aten.dropout.default",
        "aten.hardsigmoid.default",
        "aten.hardswish.default",
        "aten.mish.default",
        "aten.silu.default",
        "aten.split.Tensor",
        "aten.stack.default",
        "aten.t.default",
        "aten.transpose.int",
        "aten.unbind.int",
    }
)


def graph_from_json(data: Any, get: Callable[[Any], Tensor]) -> Graph:
    """The graph of plain data; ``get`` gives the tensor of a number.

    Raises
    ------
    ValueError, KeyError, TypeError
        If the data are none.
    """
    inputs = {_text(name): tuple(map(_size, shape)) for name, shape in data["inputs"].items()}
    constants = {_text(name): get(number) for name, number in data["constants"].items()}
    known = {*inputs, *constants}
    nodes = []
    for name, label, sources, fields in data["nodes"]:
        if not set(sources) <= known or _text(name) in known:
            raise ValueError(f"node {name!r} takes values that are not there, or is there twice")
        known.add(name)
        nodes.append(Node(name, _operation(label, fields, get), tuple(sources)))
    outputs = tuple(map(_text, data["outputs"]))
    if not outputs or not set(outputs) <= known:
        raise ValueError("the outputs are not there")
    types = {_text(name): _INPUTS[_text(dtype)] for name, dtype in data.get("types", {}).items()}
    return Graph(inputs, tuple(nodes), outputs, constants, types)


def _operation(label: Any, fields: Mapping[str, Any], get: Callable[[Any], Tensor]) -> Any:
    kind = OPERATIONS[_text(label)]
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if set(fields) != names:
        raise ValueError(f"operation {label!r} has other fields")
    operation = kind(**{name: _from_json(value, get) for name, value in fields.items()})
    if "function" in names and operation.function not in ACTIVATIONS:  # type: ignore[attr-defined]
        raise ValueError(f"activation {operation.function!r} is unknown")  # type: ignore[attr-defined]
    if isinstance(operation, Torch):
        if not _is_allowed(_text(operation.target)):
            raise ValueError(f"function {operation.target!r} is not allowed")
        if not _has_slot(operation.arguments):
            raise ValueError(f"function {operation.target!r} takes no tensor")
    return operation


def _has_slot(value: Any) -> bool:
    return isinstance(value, Slot) or (isinstance(value, tuple) and any(map(_has_slot, value)))


def _from_json(value: Any, get: Callable[[Any], Tensor]) -> Any:
    if isinstance(value, dict):
        ((kind, inner),) = value.items()
        if kind == "tensor":
            return get(inner)
        if kind == "slot":
            return Slot(_size(inner))
        if kind == "dtype":
            return _DTYPES[inner]
        raise ValueError(f"{kind!r} is unknown")
    if isinstance(value, list):
        return tuple(_from_json(each, get) for each in value)
    if isinstance(value, int) and abs(value) > _LARGEST and value != 2**63 - 1:
        raise ValueError(f"number {value} is too large")
    if isinstance(value, _SCALARS):
        return value
    raise ValueError(f"{value!r} is no value")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _size(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _LARGEST:
        raise ValueError(f"{value!r} is no size")
    return value
