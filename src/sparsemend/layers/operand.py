"""Parameters as operations see them: whole, in part, or turned."""

from __future__ import annotations

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


def key_of(tensor: Tensor) -> Key:
    """What tells views of one memory apart."""
    return (
        _address(tensor),
        int(tensor.storage_offset()),
        tuple(tensor.shape),
        tuple(tensor.stride()),
    )


class Operands:
    """Finds the parameters of a model in the operands of operations, by their memory."""

    def __init__(self, model: nn.Module) -> None:
        self._by_storage: dict[int, list[tuple[str, Tensor]]] = defaultdict(list)
        for name, parameter in model.named_parameters():
            address = _address(parameter)
            if address:
                self._by_storage[address].append((name, parameter.detach()))

    def find(self, tensor: Tensor) -> Operand | None:
        """Which parameter a tensor is a view of; None for what was computed."""
        for name, parameter in self._by_storage.get(_address(tensor), ()):
            offset = int(tensor.storage_offset()) - int(parameter.storage_offset())
            inside = 0 <= offset <= _span(parameter) - _span(tensor)
            if inside and tensor.dtype == parameter.dtype:
                whole, layout = tuple(parameter.shape), tuple(parameter.stride())
                return Operand(
                    name, tuple(tensor.shape), tuple(tensor.stride()), offset, whole, layout
                )
        return None


def _address(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):  # a tensor without memory of its own
        return 0


def _span(tensor: Tensor) -> int:
    return _extent(tuple(tensor.shape), tuple(tensor.stride()))


def _extent(shape: tuple[int, ...], stride: tuple[int, ...]) -> int:
    if not all(shape):
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
