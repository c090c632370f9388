"""Every prunable weight as a matrix, and its inputs as columns of that matrix.

The weight of a layer is seen as [groups, rows per group, fan-in]; its inputs are unfolded to
[groups, positions, fan-in], so that pre-activations are ``inputs @ matrix.mT`` plus bias.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
# Elements of one unfolded chunk (64 MiB in float32).
_CHUNK_ELEMENTS = 1 << 24


def weight_matrix(weight: Tensor, layer: Layer) -> Tensor:
    """View a stored weight as [groups, rows per group, fan-in]."""
    rows = layer.rows // layer.groups
    if layer.kind.startswith("ConvTranspose"):
        # Stored as [inputs, rows per group, *kernel].
        stored = weight.reshape(layer.groups, weight.shape[0] // layer.groups, rows, -1)
        return stored.transpose(1, 2).reshape(layer.groups, rows, layer.fan_in)
    return weight.reshape(layer.groups, rows, layer.fan_in)


def stored_weight(matrix: Tensor, layer: Layer) -> Tensor:
    """Inverse of :func:`weight_matrix`: back to the shape that the module stores."""
    if layer.kind.startswith("ConvTranspose"):
        rows = layer.rows // layer.groups
        inputs = layer.shape[0] // layer.groups
        return matrix.reshape(layer.groups, rows, inputs, -1).transpose(1, 2).reshape(layer.shape)
    return matrix.reshape(layer.shape)


def unfold(module: nn.Module, inputs: Tensor) -> Iterator[Tensor]:
    """Unfold a module's input into chunks [groups, positions, fan-in] of bounded size.

    Parameters
    ----------
    module
        A convolution, transposed convolution or linear layer.
    inputs
        What the module is called with: [N, C_in, *spatial] or [C_in, *spatial] for
        convolutions, [..., features] for linear layers.

    Yields
    ------
    Tensor
        Chunks of at most about 16 million elements that together hold every output position.
    """
    if isinstance(module, nn.Linear):
        flat = inputs.reshape(1, -1, module.in_features)
        yield from flat.split(max(1, _CHUNK_ELEMENTS // module.in_features), dim=1)
        return
    if not isinstance(module, nn.modules.conv._ConvNd):
        raise SparsemendError("cannot unfold the input of this module", type(module).__name__)
    if inputs.dim() == len(module.kernel_size) + 1:
        inputs = inputs.unsqueeze(0)
    per_input = _unfolded_elements(module, inputs)
    for part in inputs.split(max(1, _CHUNK_ELEMENTS // per_input)):
        yield _unfold_convolution(module, part)


def mean_patch(module: nn.Module, inputs: Tensor) -> Tensor:
    """Unfolded inputs of a convolution, averaged over the positions of every input.

    Parameters
    ----------
    module
        A convolution or transposed convolution.
    inputs
        [N, C_in, *spatial].

    Returns
    -------
    Tensor
        [groups, N, fan-in], found tap by tap without unfolding.
    """
    conv: Any = module
    transposed = isinstance(module, _TRANSPOSED)
    padded = _insert_zeros(inputs, conv) if transposed else pad_input(conv, inputs)
    stride = (1,) * len(conv.kernel_size) if transposed else conv.stride
    taps = []
    for tap in itertools.product(*(range(size) for size in conv.kernel_size)):
        window: list[slice] = [slice(None), slice(None)]
        for dim, k in enumerate(tap):
            reach = conv.dilation[dim] * (conv.kernel_size[dim] - 1)
            start = k * conv.dilation[dim]
            window.append(slice(start, start + padded.shape[2 + dim] - reach, stride[dim]))
        taps.append(padded[tuple(window)].mean(dim=tuple(range(2, padded.dim()))))
    if transposed:  # the kernel meets its inputs in reverse order
        taps.reverse()
    patches = torch.stack(taps, dim=2)  # [N, C_in, kernel]
    return patches.reshape(len(patches), conv.groups, -1).transpose(0, 1)


def _unfolded_elements(module: Any, inputs: Tensor) -> int:
    grow = math.prod(module.stride) if isinstance(module, _TRANSPOSED) else 1
    shrink = 1 if isinstance(module, _TRANSPOSED) else math.prod(module.stride)
    positions = inputs[0, 0].numel() * grow / shrink
    return max(1, int(positions * inputs.shape[1] * math.prod(module.kernel_size)))


def _unfold_convolution(module: Any, x: Tensor) -> Tensor:
    dims = len(module.kernel_size)
    transposed = isinstance(module, _TRANSPOSED)
    stride = (1,) * dims if transposed else module.stride
    x = _insert_zeros(x, module) if transposed else pad_input(module, x)
    windows = x
    for dim in range(dims):
        reach = module.dilation[dim] * (module.kernel_size[dim] - 1) + 1
        windows = windows.unfold(2 + dim, reach, stride[dim])
    taps = tuple(slice(None, None, step) for step in module.dilation)
    windows = windows[(..., *taps)]  # type: ignore[index]
    if transposed:  # the kernel meets its inputs in reverse order
        windows = windows.flip(tuple(range(-dims, 0)))
    # [N, C, *positions, *kernel] → [groups, N · positions, C per group · kernel]
    count, channels = windows.shape[:2]
    grouped = windows.reshape(count, module.groups, channels // module.groups, *windows.shape[2:])
    positions = tuple(range(3, 3 + dims))
    kernel = tuple(range(3 + dims, 3 + 2 * dims))
    ordered = grouped.permute(1, 0, *positions, 2, *kernel)
    fan_in = channels // module.groups * math.prod(module.kernel_size)
    return ordered.reshape(module.groups, -1, fan_in)


def pad_input(module: Any, x: Tensor) -> Tensor:
    """Pad a convolution's input as the module itself would."""
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


def _insert_zeros(x: Tensor, module: Any) -> Tensor:
    """The input of the plain convolution that a transposed convolution amounts to."""
    size = [(n - 1) * step + 1 for n, step in zip(x.shape[2:], module.stride, strict=True)]
    spread = x.new_zeros((*x.shape[:2], *size))
    spread[(..., *(slice(None, None, step) for step in module.stride))] = x  # type: ignore[index]
    amounts: list[int] = []
    for dim in reversed(range(len(size))):
        edge = module.dilation[dim] * (module.kernel_size[dim] - 1) - module.padding[dim]
        amounts += [edge, edge + module.output_padding[dim]]
    return F.pad(spread, amounts)


def channel_last(module: nn.Module, output: Tensor) -> Tensor:
    """A layer's output as [positions, channels], one row per output position."""
    if isinstance(module, nn.Linear):
        return output.reshape(-1, output.shape[-1])
    dims = len(module.kernel_size)  # type: ignore[arg-type]
    batched = output if output.dim() == dims + 2 else output.unsqueeze(0)
    return torch.movedim(batched, 1, -1).reshape(-1, batched.shape[1])


def channel_shape(layer: Layer) -> tuple[int, ...]:
    """Shape in which a vector over channels broadcasts over a layer's output."""
    dims = len(layer.kernel_size)
    return (-1, *[1] * dims) if dims else (-1,)
