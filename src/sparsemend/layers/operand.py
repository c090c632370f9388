"""Parameters as operations see them: whole, in part, or turned."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass

from torch import Tensor, nn

Key = tuple[int, int, tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Operand:
    """A view of a parameter: what an operation multiplies with, or adds.

    Attributes
    ----------
    parameter
        Name of the parameter, as in ``named_parameters``.
    shape, stride
        Of the view, in elements.
    offset
        Where it begins, in elements from the parameter's own beginning.
    whole, layout
        Shape and stride of the parameter.
    """

    parameter: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    whole: tuple[int, ...]
    layout: tuple[int, ...]

    def of(self, model: nn.Module) -> Tensor:
        """The view in a model: detached, in the model's own memory.

        Raises
        ------
        AttributeError
            If the model has no such parameter.
        ValueError
            If it is of another shape, or lies in memory in another order.
        """
        parameter = model.get_parameter(self.parameter).detach()
        if tuple(parameter.shape) != self.whole:
            raise ValueError(f"weight shape {tuple(parameter.shape)}")
        if parameter.stride() != self.layout:
            if (self.shape, self.stride) == (self.whole, self.layout):
                return parameter
            raise ValueError(f"a parameter of strides {parameter.stride()}, not {self.layout}")
        start = parameter.storage_offset() + self.offset
        return parameter.as_strided(self.shape, self.stride, start)

    @property
    def extent(self) -> int:
        """Elements of memory from its first to behind its last."""
        return _extent(self.shape, self.stride)

    def subscript(self) -> str | None:
        """The view as an index of the parameter, as in ``"0:8, 4:"``; None where it is no index."""
        if sorted(self.layout, reverse=True) != list(self.layout):
            return None
        rest, starts = self.offset, []
        for step in self.layout:
            starts.append(rest // max(1, step))
            rest -= starts[-1] * step
        parts = [str(start) for start in starts]
        free = list(range(len(self.whole)))
        for size, stride in zip(self.shape, self.stride, strict=True):
            fits = [
                d
                for d in free
                if stride % max(1, self.layout[d]) == 0
                and starts[d] + (size - 1) * (stride // max(1, self.layout[d])) < self.whole[d]
            ]
            if not fits:
                return None
            d = max(fits, key=lambda d: self.layout[d])
            free.remove(d)
            step = stride // max(1, self.layout[d])
            stop = starts[d] + (size - 1) * step + 1
            parts[d] = f"{starts[d]}:{stop}" + (f":{step}" if step > 1 else "")
            if size == self.whole[d]:
                parts[d] = ":"
        while parts and parts[-1] == ":":
            parts.pop()
        return ", ".join(parts)

    def mark(self, taken: Tensor) -> bool:
        """Note the elements in [whole], and whether they were free, each of them met once."""
        span = taken.as_strided(self.shape, self.stride, self.offset)
        free = not span.any()
        before = int(taken.sum())
        span.fill_(True)
        return free and int(taken.sum()) - before == math.prod(self.shape)


def key_of(tensor: Tensor) -> Key:
    """What tells views of one memory apart."""
    return (
        address_of(tensor),
        int(tensor.storage_offset()),
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )


class Operands:
    """Finds the parameters of a model in the operands of operations, by their memory."""

    def __init__(self, model: nn.Module) -> None:
        self._by_storage: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            address = address_of(parameter)
            if address:
                self._by_storage[address].append((name, parameter.detach()))

    def find(self, tensor: Tensor) -> Operand | None:
        """Which parameter a tensor is a view of; None for what was computed."""
        for name, parameter in self._by_storage.get(address_of(tensor), ()):
            offset = int(tensor.storage_offset()) - int(parameter.storage_offset())
            inside = 0 <= offset <= span_of(parameter) - span_of(tensor)
            if inside and tensor.dtype == parameter.dtype:
                whole, layout = tuple(parameter.shape), tuple(parameter.stride())
                return Operand(
                    name, tuple(tensor.shape), tuple(tensor.stride()), offset, whole, layout
                )
        return None


def address_of(tensor: Tensor) -> int:
    """Where its memory is; 0 where it has none."""
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a tensor without memory of its own
        return 0


def span_of(tensor: Tensor) -> int:
    """Elements of memory from its first to behind its last."""
    return _extent(tuple(tensor.shape), tuple(tensor.stride()))


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    if not all(shape):
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
