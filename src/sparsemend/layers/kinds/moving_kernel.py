"""What convolutions and transposed convolutions share: a kernel that moves over a grid."""

from __future__ import annotations

import itertools
import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsemend.execution.layout import is_wide
from sparsemend.layers.kinds.kind import LayerKind
from sparsemend.layers.kinds.shape import LayerShape

# Output positions of an input up to which sums of products are made of unfolded inputs.
_FEW_POSITIONS = 64
# Elements unfolded at a time for that, which stay in the cache.
_CACHED_ELEMENTS = 1 << 20


class MovingKernel(LayerKind):
    """Inputs [N, C_in, *spatial], or one without N; outputs [N, C, *spatial].

    Columns of the matrix: the channels of the row's group outermost, then the kernel.

    Attributes
    ----------
    operations
        Functions of PyTorch → the module that calls them.
    reverses_kernel
        Whether the taps of the kernel meet the padded input in reverse order.
    """

    is_convolution = True
    operations: ClassVar[Mapping[Any, type[nn.Module]]]
    reverses_kernel: ClassVar[bool] = False

    def operation(self, module: Any) -> Any:
        """The function that a geometry's module calls."""
        return next(op for op, kind in self.operations.items() if isinstance(module, kind))

    def rows(self, module: Any) -> int:
        return int(module.out_channels)

    def groups(self, module: Any) -> int:
        return int(module.groups)

    def kernel_size(self, layer: LayerShape) -> tuple[int, ...]:
        return layer.shape[2:]

    def is_batched(self, module: Any, x: Tensor) -> bool:
        return x.dim() == len(module.kernel_size) + 2

    def unfold(self, module: Any, x: Tensor) -> Iterator[Tensor]:
        x = self.batched(module, x)
        positions = self._positions_about(module, x)
        elements = max(1, int(positions * x.shape[1] * math.prod(module.kernel_size)))
        for part in x.split(max(1, self.chunk_elements // elements)):
            yield self._unfold(module, part)

    def mean_patch(self, module: Any, x: Tensor) -> Tensor:
        """Found tap by tap without unfolding."""
        padded, stride = self.pad(module, x), self._stride(module)
        taps = []
        for tap in itertools.product(*(range(size) for size in module.kernel_size)):
            window: list[slice] = [slice(None), slice(None)]
            for dim, k in enumerate(tap):
                reach = module.dilation[dim] * (module.kernel_size[dim] - 1)
                start = k * module.dilation[dim]
                window.append(slice(start, start + padded.shape[2 + dim] - reach, stride[dim]))
            taps.append(padded[tuple(window)].mean(dim=tuple(range(2, padded.dim()))))
        if self.reverses_kernel:
            taps.reverse()
        patches = torch.stack(taps, dim=2)  # [N, C_in, kernel]
        return patches.reshape(len(patches), module.groups, -1).transpose(0, 1)

    def cross_sum(self, module: Any, layer: LayerShape, x: Tensor, targets: Tensor) -> Tensor:
        """What the backward pass computes for the weight, so the framework's own kernel does it."""
        if not self.is_batched(module, x):
            x, targets = x.unsqueeze(0), targets.unsqueeze(0)
        if self._unfolds_faster(module, x, targets):
            return self._unfolded_sum(module, layer, x, targets)
        weight = torch.empty(layer.shape, dtype=x.dtype, device=x.device)
        if x.dim() == 4 and not x.is_contiguous():
            weight = weight.contiguous(memory_format=torch.channels_last)
        return self.weight_matrix(self._weight_gradient(module, weight, x, targets), layer)

    def _unfolds_faster(self, module: Any, x: Tensor, targets: Tensor) -> bool:
        """Whether products of unfolded inputs are faster than the framework's own kernel.

        On a CPU that is up to twice as slow where a wide layer skips positions or has few of them.
        """
        few = math.prod(targets.shape[2:]) <= _FEW_POSITIONS
        faster = is_wide(x.shape[1], module.groups) and (few or max(self._stride(module)) > 1)
        return faster and x.device.type == "cpu"

    def _unfolded_sum(self, module: Any, layer: LayerShape, x: Tensor, targets: Tensor) -> Tensor:
        """Of one group; channels innermost, so that runs of them are copied."""
        dims = len(module.kernel_size)
        order = (0, *range(2, 2 + 2 * dims), 1)
        total = x.new_zeros(layer.rows, layer.fan_in)
        elements = layer.fan_in * math.prod(targets.shape[2:])
        few = max(1, _CACHED_ELEMENTS // max(1, elements))
        for part, wanted in zip(x.split(few), targets.split(few), strict=True):
            unfolded = self._windows(module, part).permute(order).reshape(-1, layer.fan_in)
            total.addmm_(self.channel_last(module, wanted).mT, unfolded)
        return total.reshape(layer.rows, -1, x.shape[1]).mT.reshape(1, layer.rows, layer.fan_in)

    def channel_last(self, module: Any, output: Tensor) -> Tensor:
        output = self.batched(module, output)
        return torch.movedim(output, 1, -1).reshape(-1, output.shape[1])

    def per_input(self, output: Tensor) -> Tensor:
        return output.flatten(2)

    def channel_shape(self, layer: LayerShape) -> tuple[int, ...]:
        return (-1, *[1] * len(layer.kernel_size))

    def _windows(self, module: Any, x: Tensor) -> Tensor:
        """What the kernel sees at every position, [N, C, *positions, *kernel]."""
        dims = len(module.kernel_size)
        stride = self._stride(module)
        windows = self.pad(module, x)
        for dim in range(dims):
            reach = module.dilation[dim] * (module.kernel_size[dim] - 1) + 1
            windows = windows.unfold(2 + dim, reach, stride[dim])
        taps = tuple(slice(None, None, step) for step in module.dilation)
        windows = windows[(..., *taps)]  # type: ignore[index]
        if self.reverses_kernel:
            windows = windows.flip(tuple(range(-dims, 0)))
        return windows

    def _unfold(self, module: Any, x: Tensor) -> Tensor:
        """As [groups, N · positions, C per group · kernel]."""
        dims, windows = len(module.kernel_size), self._windows(module, x)
        count, channels = windows.shape[:2]
        inputs = channels // module.groups
        grouped = windows.reshape(count, module.groups, inputs, *windows.shape[2:])
        positions = tuple(range(3, 3 + dims))
        kernel = tuple(range(3 + dims, 3 + 2 * dims))
        ordered = grouped.permute(1, 0, *positions, 2, *kernel)
        return ordered.reshape(module.groups, -1, inputs * math.prod(module.kernel_size))

    @abstractmethod
    def _stride(self, module: Any) -> tuple[int, ...]:
        """Steps of the kernel on the padded input."""

    @abstractmethod
    def _positions_about(self, module: Any, x: Tensor) -> float:
        """Output positions of one input, borders aside."""

    @abstractmethod
    def _weight_gradient(self, module: Any, weight: Tensor, x: Tensor, targets: Tensor) -> Tensor:
        """Σ of target · input in the stored shape of the weight, whose values play no part."""
