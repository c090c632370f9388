"""Transposed convolutions, which spread their inputs out and meet them in reverse order."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.layers.kinds.call import Call, bare, bound
from sparsemend.layers.kinds.convolution import spread
from sparsemend.layers.kinds.moving_kernel import MovingKernel
from sparsemend.layers.kinds.shape import LayerShape

_NAMES = (
    "input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation",
)  # fmt: skip


class TransposedConvolution(MovingKernel):
    """A convolution of stride 1 on inputs with zeros between them, its kernel reversed.

    The weight is stored [inputs, rows per group, *kernel].
    """

    modules: ClassVar[Mapping[type[nn.Module], str]] = {
        nn.ConvTranspose1d: "ConvTranspose1d",
        nn.ConvTranspose2d: "ConvTranspose2d",
        nn.ConvTranspose3d: "ConvTranspose3d",
    }
    operations: ClassVar[Mapping[Any, type[nn.Module]]] = {
        torch.conv_transpose1d: nn.ConvTranspose1d,
        torch.conv_transpose2d: nn.ConvTranspose2d,
        torch.conv_transpose3d: nn.ConvTranspose3d,
    }
    label = "ConvTranspose1d/2d/3d"
    reverses_kernel = True

    def read(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
        if operation not in self.operations:
            return None
        plain = {"stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1}
        given = bound(_NAMES, args, kwargs, bias=None, **plain)
        weight, dims = given["weight"], given["weight"].dim() - 2
        layout = ("stride", "padding", "output_padding", "dilation")
        geometry = bare(
            self.operations[operation],
            in_channels=weight.shape[0],
            out_channels=weight.shape[1] * given["groups"],
            kernel_size=tuple(weight.shape[2:]),
            groups=given["groups"],
            padding_mode="zeros",
            **{name: spread(given[name], dims) for name in layout},
        )
        return Call(geometry, given["input"], weight, given["bias"])

    def apply(self, module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        output: Tensor = self.operation(module)(
            x,
            weight,
            bias,
            module.stride,
            module.padding,
            module.output_padding,
            module.groups,
            module.dilation,
        )
        return output

    def weight_matrix(self, weight: Tensor, layer: LayerShape) -> Tensor:
        rows = layer.rows // layer.groups
        stored = weight.reshape(layer.groups, weight.shape[0] // layer.groups, rows, -1)
        return stored.transpose(1, 2).reshape(layer.groups, rows, layer.fan_in)

    def stored_weight(self, matrix: Tensor, layer: LayerShape) -> Tensor:
        rows, inputs = layer.rows // layer.groups, layer.shape[0] // layer.groups
        return matrix.reshape(layer.groups, rows, inputs, -1).transpose(1, 2).reshape(layer.shape)

    def count_positions(self, module: Any, x: Tensor) -> int:
        """Borders aside."""
        spatial: tuple[int, ...] = x.shape[-len(module.kernel_size) :]
        stride: tuple[int, ...] = module.stride
        count = len(x) if self.is_batched(module, x) else 1
        return count * math.prod(n * step for n, step in zip(spatial, stride, strict=True))

    def pad(self, module: Any, x: Tensor) -> Tensor:
        """The input of the plain convolution that this one amounts to."""
        size = [(n - 1) * step + 1 for n, step in zip(x.shape[2:], module.stride, strict=True)]
        spread = x.new_zeros((*x.shape[:2], *size))
        spread[(..., *(slice(None, None, step) for step in module.stride))] = x  # type: ignore[index]
        amounts: list[int] = []
        for dim in reversed(range(len(size))):
            edge = module.dilation[dim] * (module.kernel_size[dim] - 1) - module.padding[dim]
            amounts += [edge, edge + module.output_padding[dim]]
        return F.pad(spread, amounts)

    def _stride(self, module: Any) -> tuple[int, ...]:
        return (1,) * len(module.kernel_size)

    def _positions_about(self, module: Any, x: Tensor) -> float:
        return float(x[0, 0].numel() * math.prod(module.stride))

    def _weight_gradient(self, module: Any, weight: Tensor, x: Tensor, targets: Tensor) -> Tensor:
        gradient: Tensor = torch.ops.aten.convolution_backward(
            targets,
            x,
            weight,
            None,
            module.stride,
            module.padding,
            module.dilation,
            True,
            module.output_padding,
            module.groups,
            (False, True, False),
        )[1]
        return gradient
