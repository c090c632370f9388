"""Operators of ``torch.ops.aten``, as exported networks call them, by their public functions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload, OpOverloadPacket
from torch.nn import functional as F

_NAMES = (
    *("conv1d", "conv2d", "conv3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
    *("matmul", "mm", "bmm", "mv", "inner", "tensordot", "einsum", "bilinear"),
    *("addmm", "addmv", "baddbmm", "addbmm"),
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)
_PUBLIC = {"aten::linear": F.linear} | {f"aten::{name}": getattr(torch, name) for name in _NAMES}


def public(operation: Any) -> Any:
    """The function of PyTorch that takes the same arguments; any other operation as it is."""
    if isinstance(operation, OpOverload):
        operation = operation.overloadpacket
    if isinstance(operation, OpOverloadPacket):
        return _PUBLIC.get(operation._qualified_op_name, operation)
    return operation


def name_of(operation: Any) -> str:
    """What an operation is called; of operators that are no part of PyTorch with their library."""
    if isinstance(operation, OpOverload):
        operation = operation.overloadpacket
    if isinstance(operation, OpOverloadPacket):
        return str(operation._qualified_op_name).removeprefix("aten::")
    return str(getattr(operation, "__name__", operation))


def is_foreign(name: str) -> bool:
    """Whether an operation of this name is no part of PyTorch."""
    return "::" in name


def transformed() -> bool:
    """Whether operations run within ``torch.vmap`` or another transform of ``torch.func``.

    What they are called with is then not what the network computes with.
    """
    return torch._C._functorch.peek_interpreter_stack() is not None


def untransformed(value: Any) -> Any:
    """A tensor as it is outside of all transforms; anything else as it is."""
    functorch = torch._C._functorch
    while isinstance(value, Tensor) and functorch.is_functorch_wrapped_tensor(value):
        value = functorch.get_unwrapped(value)
    return value
