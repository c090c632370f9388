"""Operations of PyTorch that multiply with weights inside, and what they consist of.

Each is written out in operations that kinds of layers read, so that inputs and outputs of every
weight are seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.layers import recurrent
from sparsemend.layers.equations import written_out

_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_PRODUCTS = {
    torch.matmul, torch.mm, torch.bmm, torch.mv, torch.linalg.matmul,
    Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__,
}  # fmt: skip

_ADDED = {torch.baddbmm, Tensor.baddbmm}
_GROUPED = getattr(torch, "_grouped_mm", "none in this PyTorch")

IsWeight = Callable[[Tensor], bool]


def open_operation(
    operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any], is_weight: IsWeight
) -> Callable[..., Any] | None:
    """What to call instead of an operation, with the same arguments; None to leave it as it is.

    Parameters
    ----------
    operation, args, kwargs
        What is called.
    is_weight
        Whether a tensor is a parameter, or a view of one.
    """
    if operation in _WRITTEN_OUT:
        return _WRITTEN_OUT[operation]
    if operation is torch.einsum and not kwargs:
        return written_out(args, is_weight)
    if operation is _GROUPED:
        return _routed if _is_routed(args, kwargs, is_weight) else None
    if operation in _ADDED and len(args) == 3 and not kwargs:
        return _each_expert_added if is_weight(args[2]) else None
    if operation not in _PRODUCTS or len(args) != 2 or kwargs:
        return None
    first, second = (is_weight(operand) for operand in args)
    if second and args[1].dim() == 3:
        return _each_expert
    if first and not second and args[0].dim() in (2, 3):
        return _from_the_left
    return None


def _attention(*args: Any, **kwargs: Any) -> Any:
    with _as_written():
        return F.multi_head_attention_forward(*args, **kwargs)


@contextmanager
def _as_written() -> Iterator[None]:
    """Let functions of ``torch.nn.functional`` run as they are written.

    They ask first whether somebody watches, and would then hand the whole call over instead of
    the operations that it consists of.
    """
    before = {name: getattr(F, name) for name in _CHECKS}
    try:
        for name in _CHECKS:
            setattr(F, name, lambda *_: False)
        yield
    finally:
        for name, check in before.items():
            setattr(F, name, check)


def _bilinear(first: Tensor, second: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer on the products of all pairs of inputs."""
    pairs = first.unsqueeze(-1) * second.unsqueeze(-2)
    return F.linear(pairs.flatten(-2), weight.flatten(1), bias)


def _each_expert(x: Tensor, weight: Tensor) -> Tensor:
    """A stack of matrices [experts, in, out], each on inputs of its own."""
    if x.dim() < 3 or x.shape[-3] == 1:  # all on the same ones
        x = x.expand(*x.shape[:-3], len(weight), *x.shape[-2:])
    return torch.stack([F.linear(x[..., e, :, :], weight[e].mT) for e in range(len(weight))], -3)


def _each_expert_added(added: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    return added + _each_expert(x, weight)


def _from_the_left(weight: Tensor, x: Tensor) -> Tensor:
    """W x, where inputs are columns: a matrix, or a stack of them."""
    if x.dim() == 1:
        return F.linear(x, weight)
    x = F.linear(x.mT, weight) if weight.dim() == 2 else _each_expert(x.mT, weight.mT)
    return x.mT


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
    F.multi_head_attention_forward: _attention,
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
