"""Products of tensors with weights, written out as linear layers.

PyTorch has many ways to multiply: from the left, with stacks of matrices, over several dimensions,
and with something added in the same operation.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.layers.equations import tensordot_equation, written_out
from sparsemend.layers.kinds.call import bound

IsWeight = Callable[[Tensor], bool]

_PRODUCTS = {
    torch.matmul, torch.mm, torch.bmm, torch.mv, torch.linalg.matmul,
    Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.mv, Tensor.__matmul__, Tensor.__rmatmul__,
}  # fmt: skip
_IN_PLACE = {Tensor.addmm_, Tensor.addmv_, Tensor.baddbmm_, Tensor.addbmm_}
_OVER_STACKS = {torch.addbmm, Tensor.addbmm, Tensor.addbmm_}
_ADDED = _IN_PLACE | _OVER_STACKS | {
    torch.addmm, torch.addmv, torch.baddbmm, Tensor.addmm, Tensor.addmv, Tensor.baddbmm,
}  # fmt: skip
_FIRST, _SECOND = ("mat1", "mat", "batch1"), ("other", "mat2", "vec", "batch2")


def open_product(
    operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight
) -> Callable[..., Any] | None:
    """What to call instead of a product, with any arguments; None to leave it as it is.

    Parameters
    ----------
    operation, args, kwargs
        What is called.
    is_weight
        Whether a tensor is a parameter, a view of one, or a copy of either in another type.
    """
    if kwargs.get("out") is not None:
        return None
    if operation in _ADDED:
        return _open_sum(operation, args, kwargs, is_weight)
    if operation in _PRODUCTS:
        operands = [*args, *(kwargs[name] for name in ("input", *_SECOND) if name in kwargs)]
        if operation is Tensor.__rmatmul__:
            operands.reverse()
        way = _way(operands, is_weight) if len(operands) == 2 else None
        return None if way is None else lambda *_, **__: way(*operands)
    if operation in (torch.inner, Tensor.inner) and len(args) == 2:
        first, second = args
        matrix = is_weight(second) and second.dim() == 2
        return (lambda *_: F.linear(first, second)) if matrix else None
    if operation is torch.linalg.multi_dot and not kwargs:
        return _open_chain(args[0], is_weight)
    if operation is torch.tensordot:
        given = bound(("a", "b", "dims"), args, kwargs, dims=2)
        a, b = given["a"], given["b"]
        if is_weight(a) or is_weight(b):
            return written_out((tensordot_equation(a, b, given["dims"]), a, b), is_weight)
    return None


def _way(operands: Sequence[Tensor], is_weight: IsWeight) -> Callable[..., Tensor] | None:
    """How a product is written out; matrices from the right need nothing."""
    first, second = operands
    if is_weight(second):
        return _each_matrix if _is_stack(first.shape[:-2], second) else None
    if not is_weight(first) or first.dim() < 2:
        return None
    stacked = first.dim() == 2 or _is_stack(second.shape[:-2], first)
    return _from_the_left if stacked else None


def _is_stack(others: Sequence[int], weight: Tensor) -> bool:
    """Whether a weight is a stack of matrices, each of which meets inputs of its own."""
    lead = weight.shape[:-2]
    if not lead:
        return False
    together = torch.broadcast_shapes(tuple(others), lead)
    return math.prod(lead) == 1 or together[-len(lead) :] == lead


def _each_matrix(x: Tensor, weight: Tensor) -> Tensor:
    """A stack of matrices [*stack, in, out], each on inputs of its own [..., *stack, n, in]."""
    if x.dim() == 1:
        return _each_matrix(x.unsqueeze(0), weight).squeeze(-2)
    lead = weight.shape[:-2]
    shape = torch.broadcast_shapes(x.shape[:-2], lead)
    if math.prod(lead) == 1:
        alone = F.linear(x, weight[(0,) * len(lead)].mT)
        return torch.broadcast_to(alone, (*shape, *alone.shape[-2:]))
    parts = x.expand(*shape, *x.shape[-2:]).flatten(-len(lead) - 2, -3)
    places = itertools.product(*map(range, lead))
    products = [F.linear(parts[..., e, :, :], weight[place].mT) for e, place in enumerate(places)]
    return torch.stack(products, -3).reshape(*shape, *products[0].shape[-2:])


def _from_the_left(weight: Tensor, x: Tensor) -> Tensor:
    """W x, where inputs are columns: a matrix, or a stack of them."""
    if x.dim() == 1:
        return _from_the_left(weight, x.unsqueeze(-1)).squeeze(-1)
    product: Tensor = F.linear(x.mT, weight) if weight.dim() == 2 else _each_matrix(x.mT, weight.mT)
    return product.mT


def _open_sum(
    operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], is_weight: IsWeight
) -> Callable[..., Tensor] | None:
    """beta · input + alpha · (first · second)."""
    names = dict.fromkeys(_FIRST, "first") | dict.fromkeys(_SECOND, "second")
    named = {names.get(name, name): value for name, value in kwargs.items()}
    given = bound(("input", "first", "second"), args, named, beta=1, alpha=1)
    added, first, second = (given[name] for name in ("input", "first", "second"))
    beta, alpha = given["beta"], given["alpha"]
    if len(args) > 3 or not (is_weight(first) or is_weight(second)):
        return None

    def apply(*_: Any, **__: Any) -> Tensor:
        total: Tensor = first @ second
        total = total.sum(0) if operation in _OVER_STACKS else total
        total = total if alpha == 1 else alpha * total
        if beta:  # with 0 the input is ignored, also where it is NaN
            total = total + (added if beta == 1 else beta * added)
        return added.copy_(total) if operation in _IN_PLACE else total

    return apply


def _open_chain(tensors: Sequence[Tensor], is_weight: IsWeight) -> Callable[..., Tensor] | None:
    """A product of several, from the end that is no weight."""
    if not any(map(is_weight, tensors)):
        return None
    if is_weight(tensors[0]):
        return lambda *_: reduce(lambda x, weight: weight @ x, reversed(tensors))
    return lambda *_: reduce(operator.matmul, tensors)
