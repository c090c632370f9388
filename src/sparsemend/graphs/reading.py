"""Which operation of a graph a call of an ATen operator is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sparsemend.graphs.operations import (
    Activation,
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    GlobalAverage,
    Linear,
    MaxPool,
    Operation,
    Pair,
    Reshape,
    Softmax,
)


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor in the arguments of a call.

    Attributes
    ----------
    shape
        Of the tensor.
    name
        Name of the value in the graph; None for a constant.
    constant
        The tensor, if it is constant.
    layer
        Path of the module whose parameter or buffer it is; empty for others.
    """

    shape: tuple[int, ...]
    name: str | None = None
    constant: Any = None
    layer: str = ""


@dataclass(frozen=True)
class Call:
    """A call of an ATen operator, with a :class:`Value` for every tensor."""

    target: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]

    def get(self, index: int, default: Any) -> Any:
        """A positional argument, which may be left out."""
        return self.args[index] if index < len(self.args) else default


@dataclass(frozen=True)
class Read:
    """An operation, what it takes, and the name to give it if it has a layer's."""

    operation: Operation
    inputs: tuple[Value, ...]
    name: str = ""


Reader = Callable[[Call, Any], Read | None]


def read(call: Call, result: Any) -> Read | Value | None:
    """Read a call.

    Returns
    -------
    Read, Value or None
        The operation; the value that the call hands on unchanged; or None if graphs have no such
        operation, and it has to be called as it is.
    """
    if call.target in _SAME and isinstance(result, Tensor):
        source: Value = call.args[0]
        if source.name is not None and not {"dtype", "memory_format"} & _given(call):
            return source
    reader = _READERS.get(call.target)
    return None if reader is None else reader(call, result)


def _given(call: Call) -> set[str]:
    return {name for name, value in call.kwargs.items() if value is not None} - {"memory_format"}


# What gives the same numbers; in a graph all values are contiguous.
_SAME = frozenset(
    {
        "aten.detach.default",
        "aten.alias.default",
        "aten.clone.default",
        "aten.contiguous.default",
        "aten.lift_fresh.default",
    }
)

_ACTIVATIONS = {
    "aten.relu.default": "relu",
    "aten.hardswish.default": "hardswish",
    "aten.hardsigmoid.default": "hardsigmoid",
    "aten.silu.default": "silu",
    "aten.sigmoid.default": "sigmoid",
    "aten.tanh.default": "tanh",
}


def _activation(call: Call, _: Any) -> Read:
    return Read(Activation(_ACTIVATIONS[call.target]), (call.args[0],))


def _hardtanh(call: Call, _: Any) -> Read | None:
    if (call.get(1, -1), call.get(2, 1)) != (0, 6):
        return None
    return Read(Activation("relu6"), (call.args[0],))


def _gelu(call: Call, _: Any) -> Read:
    tanh = call.kwargs.get("approximate", "none") == "tanh"
    return Read(Activation("gelu_tanh" if tanh else "gelu"), (call.args[0],))


def _convolution(call: Call, result: Tensor) -> Read | None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = call.args
    if transposed or len(x.shape) != 4 or _tensor(weight) is None:
        return None
    matrix = _tensor(weight)
    shift = matrix.new_zeros(matrix.shape[0]) if bias is None else _tensor(bias)
    if shift is None or len(result.shape) != 4:
        return None
    pairs = (_pair(stride), _pair(padding), _pair(dilation))
    operation = Convolution(matrix, shift, *pairs, groups)
    return Read(operation, (x,), weight.layer)


def _addmm(call: Call, _: Any) -> Read | None:
    bias, x, weight = call.args
    if call.kwargs or _tensor(bias) is None or bias.constant.dim() != 1:
        return None
    return _linear(x, weight, _tensor(bias))


def _mm(call: Call, _: Any) -> Read | None:
    x, weight = call.args
    matrix = _tensor(weight)
    return None if matrix is None else _linear(x, weight, matrix.new_zeros(matrix.shape[1]))


def _linear(x: Value, weight: Value, bias: Tensor | None) -> Read | None:
    matrix = _tensor(weight)
    if x.name is None or matrix is None or bias is None or bias.shape != matrix.shape[1:]:
        return None
    return Read(Linear(matrix.t().contiguous(), bias), (x,), weight.layer)


def _batch_norm(call: Call, _: Any) -> Read | None:
    x, weight, bias, mean, variance = call.args[:5]
    training = call.target.startswith("aten.native_batch_norm.") and call.args[5]
    eps = call.args[7] if "no_training" not in call.target else call.args[6]
    m, v = _tensor(mean), _tensor(variance)
    if training or m is None or v is None or x.name is None:
        return None
    scale = (v.double() + eps).rsqrt()
    if weight is not None:
        scale = scale * weight.constant.double()
    shift = -m.double() * scale
    if bias is not None:
        shift = shift + bias.constant.double()
    layer = mean.layer
    return Read(Affine(scale.detach(), shift.detach()), (x,), layer)


def _add(call: Call, result: Tensor) -> Read | None:
    x, y = call.args[:2]
    same = isinstance(y, Value) and x.shape == y.shape == tuple(result.shape)
    if not same or call.kwargs.get("alpha", 1) != 1 or result.dtype != torch.float32:
        return None
    return Read(Add(), (x, y))


def _concatenate(call: Call, result: Tensor) -> Read:
    return Read(Concatenate(call.get(1, 0) % result.dim()), tuple(call.args[0]))


def _max_pool(call: Call, _: Any) -> Read | None:
    x, kernel = call.args[:2]
    if len(x.shape) != 4:
        return None
    size = _pair(kernel)
    stride = _pair(call.get(2, []) or kernel)
    rest = (_pair(call.get(3, 0)), _pair(call.get(4, 1)), bool(call.get(5, False)))
    return Read(MaxPool(size, stride, *rest), (x,))


def _average_pool(call: Call, _: Any) -> Read | None:
    x, kernel = call.args[:2]
    if len(x.shape) != 4 or call.get(6, None) is not None:
        return None
    stride = _pair(call.get(2, []) or kernel)
    padding, ceil, count = _pair(call.get(3, 0)), bool(call.get(4, False)), bool(call.get(5, True))
    return Read(AveragePool(_pair(kernel), stride, padding, ceil, count), (x,))


def _adaptive_pool(call: Call, result: Tensor) -> Read | None:
    """Adaptive pooling is plain pooling where the sizes divide."""
    x = call.args[0]
    if len(x.shape) != 4 or any(a % b for a, b in zip(x.shape[2:], result.shape[2:], strict=True)):
        return None
    kernel = (x.shape[2] // result.shape[2], x.shape[3] // result.shape[3])
    return Read(AveragePool(kernel, kernel, (0, 0), False, True), (x,))


def _mean(call: Call, result: Tensor) -> Read | None:
    x, dimensions = call.args[0], call.get(1, None)
    whole = len(x.shape) == 4 and sorted(d % 4 for d in dimensions or ()) == [2, 3]
    if not whole or call.kwargs.get("dtype") is not None:
        return None
    return Read(GlobalAverage(result.dim() == 4), (x,))


def _softmax(call: Call, result: Tensor) -> Read:
    return Read(Softmax(call.args[1] % result.dim()), (call.args[0],))


def _reshape(call: Call, result: Tensor) -> Read | Value | None:
    x = call.args[0]
    if x.shape == tuple(result.shape):
        return x if x.name is not None else None
    return Read(Reshape(batch_free(x.shape, tuple(result.shape))), (x,))


def batch_free(before: Sequence[int], after: Sequence[int]) -> tuple[int, ...]:
    """A shape for :class:`Reshape` that holds for other batches, as far as that can be seen."""
    if before and after and before[0] == after[0]:
        return (0, *after[1:])
    return (-1, *after[1:]) if after else ()


def _tensor(value: Any) -> Any:
    """A constant as float32 of its own; None for what is computed."""
    if not isinstance(value, Value) or value.constant is None:
        return None
    return value.constant.detach().clone().contiguous()


def _pair(value: Any) -> Pair:
    items = list(value) if isinstance(value, list | tuple) else [value]
    return (int(items[0]), int(items[-1]))


_READERS: Mapping[str, Callable[[Call, Any], Any]] = {
    **dict.fromkeys(_ACTIVATIONS, _activation),
    "aten.hardtanh.default": _hardtanh,
    "aten.gelu.default": _gelu,
    "aten.convolution.default": _convolution,
    "aten.addmm.default": _addmm,
    "aten.mm.default": _mm,
    "aten.native_batch_norm.default": _batch_norm,
    "aten._native_batch_norm_legit_no_training.default": _batch_norm,
    "aten.add.Tensor": _add,
    "aten.cat.default": _concatenate,
    "aten.max_pool2d_with_indices.default": _max_pool,
    "aten.avg_pool2d.default": _average_pool,
    "aten._adaptive_avg_pool2d.default": _adaptive_pool,
    "aten.mean.dim": _mean,
    "aten._softmax.default": _softmax,
    "aten.view.default": _reshape,
    "aten._unsafe_view.default": _reshape,
    "aten._reshape_copy.default": _reshape,
    "aten.unsqueeze.default": _reshape,
    "aten.squeeze.default": _reshape,
    "aten.squeeze.dim": _reshape,
    "aten.squeeze.dims": _reshape,
}
