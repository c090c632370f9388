"""Convolutions in one, two and three dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from functools import reduce
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.execution.layout import channels_last, is_wide
from sparsemend.layers.kinds.axis import Axis
from sparsemend.layers.kinds.call import Call, bare, bound
from sparsemend.layers.kinds.moving_kernel import MovingKernel

_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
# Elements of the matrix of which positions each tap sees, above which there is none.
_MOST_SEEN = 1 << 24


class Convolution(MovingKernel):
    """A kernel on padded inputs; the weight is stored row by row."""

    modules: ClassVar[Mapping[type[nn.Module], str]] = {
        nn.Conv1d: "Conv1d",
        nn.Conv2d: "Conv2d",
        nn.Conv3d: "Conv3d",
    }
    operations: ClassVar[Mapping[Any, type[nn.Module]]] = {
        torch.conv1d: nn.Conv1d,
        torch.conv2d: nn.Conv2d,
        torch.conv3d: nn.Conv3d,
    }
    label = "Conv1d/2d/3d"
    reads_as_convolution = True

    def read(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
        if operation not in self.operations:
            return None
        plain = {"bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
        given = bound(_NAMES, args, kwargs, **plain)
        weight, dims = given["weight"], given["weight"].dim() - 2
        padding = given["padding"]
        geometry = bare(
            self.operations[operation],
            out_channels=weight.shape[0],
            in_channels=weight.shape[1] * given["groups"],
            kernel_size=tuple(weight.shape[2:]),
            stride=spread(given["stride"], dims),
            padding=padding if isinstance(padding, str) else spread(padding, dims),
            dilation=spread(given["dilation"], dims),
            groups=given["groups"],
            padding_mode="zeros",
        )
        return Call(geometry, given["input"], weight, given["bias"])

    def apply(self, module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = module.padding
        if module.padding_mode != "zeros":
            x, padding = self.pad(module, x), 0
        output: Tensor = self.operation(module)(
            x, weight, bias, module.stride, padding, module.dilation, module.groups
        )
        return output

    def arranged(self, module: Any, x: Tensor) -> Tensor:
        return channels_last(x) if is_wide(x.shape[1], module.groups) else x

    def count_positions(self, module: Any, x: Tensor) -> int:
        spatial = tuple(x.shape[-len(module.kernel_size) :])
        count = len(x) if self.is_batched(module, x) else 1
        return count * math.prod(axis.positions for axis in _axes(module, spatial))

    def pad(self, module: Any, x: Tensor) -> Tensor:
        amounts: list[int] = []
        for dim in reversed(range(len(module.kernel_size))):
            if isinstance(module.padding, str):
                spread = module.dilation[dim] * (module.kernel_size[dim] - 1)
                total = spread if module.padding == "same" else 0
                amounts += [total // 2, total - total // 2]
            else:
                amounts += [module.padding[dim]] * 2
        mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
        return F.pad(x, amounts, mode=mode) if any(amounts) else x

    def mean_patch(self, module: Any, x: Tensor) -> Tensor:
        """Found as a product with which positions every tap sees."""
        axes, maps = self.as_convolution(module, x)
        size = math.prod(axis.size * axis.kernel for axis in axes)
        if size > _MOST_SEEN:
            return super().mean_patch(module, x)
        sees = reduce(torch.kron, (_sees(axis, maps) for axis in axes))
        positions = math.prod(axis.positions for axis in axes)
        patches = maps.flatten(2) @ sees / positions  # [N, C_in, kernel]
        return patches.reshape(len(patches), module.groups, -1).transpose(0, 1)

    def column_sum(self, module: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Unfolding is linear, so that the inputs can be added up first."""
        inputs = self.batched(module, x)
        summed = inputs.sum(dim=0, keepdim=True, dtype=dtype)
        positions = self.count_positions(module, x) / max(1, len(inputs))
        return self.mean_patch(module, summed).squeeze(1) * positions

    def as_convolution(self, module: Any, x: Tensor) -> tuple[tuple[Axis, ...], Tensor]:
        x = self.batched(module, x)
        padded = module.padding_mode != "zeros"
        x = self.pad(module, x) if padded else x
        return _axes(module, tuple(x.shape[2:]), padded=padded), x

    def offset_axes(self, module: Any, shape: tuple[int, ...]) -> tuple[Axis, ...] | None:
        if module.groups != 1 or len(shape) != len(module.kernel_size) + 2:
            return None
        return _axes(module, shape[2:])

    def _stride(self, module: Any) -> tuple[int, ...]:
        stride: tuple[int, ...] = module.stride
        return stride

    def _positions_about(self, module: Any, x: Tensor) -> float:
        return float(x[0, 0].numel() / math.prod(module.stride))

    def _weight_gradient(self, module: Any, weight: Tensor, x: Tensor, targets: Tensor) -> Tensor:
        dims = len(module.kernel_size)
        padding = module.padding
        if isinstance(padding, str) or module.padding_mode != "zeros":
            x, padding = self.pad(module, x), (0,) * dims
        gradient: Tensor = torch.ops.aten.convolution_backward(
            targets,
            x,
            weight,
            None,
            module.stride,
            padding,
            module.dilation,
            False,
            (0,) * dims,
            module.groups,
            (False, True, False),
        )[1]
        return gradient


def _sees(axis: Axis, like: Tensor) -> Tensor:
    """1 where a tap reads an input index at some output position, [size, kernel]."""
    sees = torch.zeros(axis.size, axis.kernel)
    for k, position in itertools.product(range(axis.kernel), range(axis.positions)):
        index = axis.index(position, k)
        if 0 <= index < axis.size:
            sees[index, k] = 1
    return sees.to(like)


def _axes(module: Any, spatial: tuple[int, ...], *, padded: bool = False) -> tuple[Axis, ...]:
    """The spatial dimensions on inputs of this size, which may have been padded already."""
    axes = []
    for dim, size in enumerate(spatial):
        kernel, dilation = module.kernel_size[dim], module.dilation[dim]
        if padded or module.padding == "valid":
            before = after = 0
        elif module.padding == "same":
            before = dilation * (kernel - 1) // 2
            after = dilation * (kernel - 1) - before
        else:
            before = after = module.padding[dim]
        axes.append(Axis(size, before, after, kernel, module.stride[dim], dilation))
    return tuple(axes)


def spread(value: Any, dims: int) -> tuple[int, ...]:
    """One number for every dimension, where one was given for all."""
    if isinstance(value, int):
        return (value,) * dims
    given = tuple(int(part) for part in value)
    return given * dims if len(given) == 1 else given
