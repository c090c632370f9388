"""The operations of execution graphs; each runs in plain PyTorch, which is the reference.

An operation is a frozen dataclass: its fields are numbers, texts and tensors, so that a file can
hold it. All are for float32; images are [N, C, H, W].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

Pair = tuple[int, int]

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu6": F.relu6,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
"""Elementwise functions by name."""


class Operation:
    """What a node computes from its inputs."""

    label: ClassVar[str]

    def run(self, *inputs: Any) -> Any:
        """The result, computed by PyTorch."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Fields that are tensors, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))  # type: ignore[arg-type]
        return {name: value for name, value in pairs if isinstance(value, Tensor)}


@dataclass(frozen=True, eq=False)
class Convolution(Operation):
    """A convolution of images; ``weight`` [C_out, C_in / groups, K_h, K_w], ``bias`` [C_out]."""

    label: ClassVar[str] = "convolution"
    weight: Tensor
    bias: Tensor
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def run(self, x: Tensor) -> Tensor:
        return F.conv2d(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )


@dataclass(frozen=True, eq=False)
class Linear(Operation):
    """A matrix ``weight`` [out, in] on the last dimension, then ``bias`` [out]."""

    label: ClassVar[str] = "linear"
    weight: Tensor
    bias: Tensor

    def run(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class Affine(Operation):
    """``scale`` [C] times the input plus ``shift`` [C], along dimension 1: a BatchNorm."""

    label: ClassVar[str] = "affine"
    scale: Tensor
    shift: Tensor

    def run(self, x: Tensor) -> Tensor:
        shape = (-1, *(1,) * (x.dim() - 2))
        scale, shift = self.scale.to(x.dtype), self.shift.to(x.dtype)
        return x * scale.view(shape) + shift.view(shape)


@dataclass(frozen=True)
class Activation(Operation):
    """An elementwise function of ``ACTIVATIONS``."""

    label: ClassVar[str] = "activation"
    function: str

    def run(self, x: Tensor) -> Tensor:
        return ACTIVATIONS[self.function](x)


@dataclass(frozen=True)
class Add(Operation):
    """The sum of two tensors of the same shape."""

    label: ClassVar[str] = "add"

    def run(self, x: Tensor, y: Tensor) -> Tensor:
        return x + y


@dataclass(frozen=True)
class Concatenate(Operation):
    """Tensors one behind the other along a dimension."""

    label: ClassVar[str] = "concatenate"
    dimension: int

    def run(self, *inputs: Tensor) -> Tensor:
        return torch.cat(inputs, self.dimension)


@dataclass(frozen=True)
class MaxPool(Operation):
    """The largest value of every window."""

    label: ClassVar[str] = "max_pool"
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil: bool

    def run(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, self.kernel, self.stride, self.padding, self.dilation, self.ceil)


@dataclass(frozen=True)
class AveragePool(Operation):
    """The mean of every window; ``count_padding`` says whether padding counts as zeros."""

    label: ClassVar[str] = "average_pool"
    kernel: Pair
    stride: Pair
    padding: Pair
    ceil: bool
    count_padding: bool

    def run(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(
            x, self.kernel, self.stride, self.padding, self.ceil, self.count_padding
        )


@dataclass(frozen=True)
class GlobalAverage(Operation):
    """The mean over all positions of images [N, C, H, W]: [N, C, 1, 1] or, not kept, [N, C]."""

    label: ClassVar[str] = "global_average"
    keep: bool = True

    def run(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keep)


@dataclass(frozen=True)
class Softmax(Operation):
    """Softmax along a dimension."""

    label: ClassVar[str] = "softmax"
    dimension: int

    def run(self, x: Tensor) -> Tensor:
        return torch.softmax(x, self.dimension)


@dataclass(frozen=True)
class Reshape(Operation):
    """The same numbers in another shape; a size 0 is the input's at that place, -1 what is left."""

    label: ClassVar[str] = "reshape"
    shape: tuple[int, ...]

    def run(self, x: Tensor) -> Tensor:
        return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(self.shape)])


@dataclass(frozen=True)
class Slot:
    """Where in the arguments of a PyTorch function the input of this number goes."""

    index: int


@dataclass(frozen=True)
class Torch(Operation):
    """Any other function of PyTorch: an ATen operator by name, as ``aten.slice.Tensor``.

    ``arguments`` are as the operator takes them, nested in tuples, with a :class:`Slot` for each
    tensor; ``keywords`` are pairs of name and value.
    """

    label: ClassVar[str] = "torch"
    target: str
    arguments: tuple[Any, ...]
    keywords: tuple[tuple[str, Any], ...] = ()

    def run(self, *inputs: Any) -> Any:
        keywords = {name: filled(value, inputs) for name, value in self.keywords}
        return operator_of(self.target)(*filled(self.arguments, inputs), **keywords)


@dataclass(frozen=True)
class Item(Operation):
    """One of the several results of an operator."""

    label: ClassVar[str] = "item"
    index: int

    def run(self, results: Any) -> Any:
        return results[self.index]


OPERATIONS: Mapping[str, type[Operation]] = {
    kind.label: kind
    for kind in (
        Convolution,
        Linear,
        Affine,
        Activation,
        Add,
        Concatenate,
        MaxPool,
        AveragePool,
        GlobalAverage,
        Softmax,
        Reshape,
        Torch,
        Item,
    )
}
"""Every kind of operation by its label."""


def operator_of(target: str) -> Any:
    """The ATen operator of a name such as ``aten.slice.Tensor``.

    Raises
    ------
    AttributeError
        If PyTorch has none of that name.
    """
    found: Any = torch.ops
    for part in target.split("."):
        found = getattr(found, part)
    return found


def filled(template: Any, inputs: Sequence[Any]) -> Any:
    """Arguments with the inputs in their slots; operators want lists, files and hashes tuples."""
    if isinstance(template, Slot):
        return inputs[template.index]
    if isinstance(template, tuple):
        return [filled(each, inputs) for each in template]
    return template
