"""Operations of PyTorch that multiply with weights inside, and what they consist of.

Each is written out in operations that kinds of layers read, so that inputs and outputs of every
weight are seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.layers import recurrent

_CHECKS = ("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic")
_STACKED = {torch.bmm, Tensor.bmm, torch.matmul, Tensor.matmul, Tensor.__matmul__}

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
    if operation in _STACKED and len(args) == 2 and not kwargs:
        return _each_expert if args[1].dim() == 3 and is_weight(args[1]) else None
    if operation is torch.einsum and not kwargs and len(args) == 3:
        return _einsum if is_weight(args[2]) and _plan(args[0], args[1], args[2]) else None
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
    if x.dim() == 2:
        x = x.expand(len(weight), *x.shape)
    return torch.stack([F.linear(x[..., e, :, :], weight[e].mT) for e in range(len(weight))], -3)


Plan = tuple[str, str, str, str]  # labels of x, of the weight, of the output, and of the experts


def _plan(equation: Any, x: Tensor, weight: Tensor) -> Plan | None:
    """How an equation of two operands is a linear layer, or one for each expert."""
    if not isinstance(equation, str) or "->" not in equation or "." in equation:
        return None
    inputs, out = equation.replace(" ", "").split("->")
    ours, theirs = (*inputs.split(","), "")[:2]
    experts = [label for label in theirs if label in ours and label in out]
    summed = [label for label in theirs if label in ours and label not in out]
    rows = [label for label in theirs if label not in ours and label in out]
    if len(rows) == 2 and theirs[0] in rows and not experts:  # all experts see the same inputs
        experts = [theirs[0]]
        rows.remove(theirs[0])
    plain = len(ours) == x.dim() and len(theirs) == weight.dim() == len(set(theirs))
    kept = set(ours) - set(summed) <= set(out)
    if not (plain and kept and len(summed) == len(rows) == 1 and len(experts) <= 1):
        return None
    if len(theirs) != len(experts) + 2:
        return None
    return ours, theirs, out, "".join(experts)


def _einsum(equation: str, x: Tensor, weight: Tensor) -> Tensor:
    plan = _plan(equation, x, weight)
    assert plan is not None, "asked before"
    ours, theirs, out, expert = plan
    summed = next(label for label in theirs if label in ours and label not in out)
    rows = next(label for label in theirs if label not in ours and label != expert)
    x, ours = x.movedim(ours.index(summed), -1), ours.replace(summed, "") + rows
    if expert:
        if expert not in ours:
            x, ours = x.expand(weight.shape[theirs.index(expert)], *x.shape), expert + ours
        x, ours = x.movedim(ours.index(expert), 0), expert + ours.replace(expert, "")
        stack = weight.movedim(theirs.index(expert), 0)
        rest = theirs.replace(expert, "")
        parts = [F.linear(a, _turned(w, rest, rows)) for a, w in zip(x, stack, strict=True)]
        found = torch.stack(parts)
    else:
        found = F.linear(x, _turned(weight, theirs, rows))
    return found.permute([ours.index(label) for label in out])


def _turned(matrix: Tensor, labels: str, rows: str) -> Tensor:
    return matrix if labels.index(rows) == 0 else matrix.mT


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
