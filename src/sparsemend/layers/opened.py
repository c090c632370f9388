"""Operations of PyTorch that multiply with weights inside, and what they consist of.

Each is written out in operations that kinds of layers read, so that inputs and outputs of every
weight are seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.layers import recurrent
from sparsemend.layers.equations import written_out
from sparsemend.layers.products import IsWeight, open_product

_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_GROUPED = getattr(torch, "_grouped_mm", "none in this PyTorch")


def open_operation(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], is_weight: IsWeight
) -> Callable[..., Any] | None:
    """What to call instead of an operation, with the same arguments; None to leave it as it is.

    Parameters
    ----------
    operation, args, kwargs
        What is called.
    is_weight
        Whether a tensor is a parameter, a view of one, or a copy of either in another type.
    """
    if operation in _WRITTEN_OUT:
        return _WRITTEN_OUT[operation]
    if operation is torch.einsum and not kwargs:
        return written_out(args, is_weight)
    if operation is _GROUPED:
        return _routed if _is_routed(args, kwargs, is_weight) else None
    return open_product(operation, args, kwargs, is_weight)


def _unwatched(function: Any) -> Callable[..., Any]:
    """A function of ``torch.nn.functional`` that runs as it is written.

    It asks first whether somebody watches, and would then hand the whole call over instead of the
    operations that it consists of.
    """
    scope = {**function.__globals__, **dict.fromkeys(_CHECKS, lambda *_: False)}
    made = FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


def _bilinear(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer on the products of all pairs of inputs."""
    pairs = first.unsqueeze(-1) * second.unsqueeze(-2)
    return F.linear(pairs.flatten(-2), weight.flatten(1), bias)


def _is_routed(args: tuple[Any, ...], kwargs: dict[str, Any], is_weight: IsWeight) -> bool:
    known = len(args) == 2 and set(kwargs) <= {"offs", "bias", "out_dtype"}
    plain = kwargs.get("offs") is not None and kwargs.get("bias") is None
    return known and plain and args[0].dim() == 2 and args[1].dim() == 3 and is_weight(args[1])


def _routed(x: Tensor, weight: Tensor, *, offs: Tensor, **_: Any) -> Tensor:
    """Rows of inputs that are sorted by expert; ``offs`` says where those of each end."""
    ends = [0, *offs.tolist()]
    parts = [
        F.linear(x[start:end], weight[e].mT)
        for e, (start, end) in enumerate(itertools.pairwise(ends))
        if end > start
    ]
    return torch.cat([*parts, x.new_zeros(len(x) - ends[-1], weight.shape[-1])])


_WRITTEN_OUT: dict[Any, Callable[..., Any]] = {
    F.multi_head_attention_forward: _unwatched(F.multi_head_attention_forward),
    torch.bilinear: _bilinear,
    torch.lstm: recurrent.written_out(recurrent.lstm_step, 2),
    torch.gru: recurrent.written_out(recurrent.gru_step, 1),
    torch.rnn_tanh: recurrent.written_out(recurrent.tanh_step, 1),
    torch.rnn_relu: recurrent.written_out(recurrent.relu_step, 1),
    torch.lstm_cell: recurrent.cell(recurrent.lstm_step),
    torch.gru_cell: recurrent.cell(recurrent.gru_step),
    torch.rnn_tanh_cell: recurrent.cell(recurrent.tanh_step),
    torch.rnn_relu_cell: recurrent.cell(recurrent.relu_step),
}
