"""What the library must know of a kind of layer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from sparsemend.layers.kinds.axis import Axis
from sparsemend.layers.kinds.call import Call
from sparsemend.layers.kinds.shape import LayerShape


class LayerKind(ABC):
    """One kind of layer; instances hold nothing, modules and descriptions are passed in.

    Attributes
    ----------
    modules
        Module types that are of this kind → the public name of such layers, ``Layer.kind``.
    label
        Those names as an error message lists them.
    is_convolution
        Whether outputs are [N, channels, *spatial], computed by a kernel that moves over a grid.
    reads_as_convolution
        Whether :meth:`as_convolution` can be called.
    chunk_elements
        Elements of one unfolded chunk (64 MiB in float32).
    """

    modules: ClassVar[Mapping[type[nn.Module], str]]
    label: ClassVar[str]
    is_convolution: ClassVar[bool] = False
    reads_as_convolution: ClassVar[bool] = False
    chunk_elements: ClassVar[int] = 1 << 24

    def covers(self, module: object) -> bool:
        """Whether a module is of this kind."""
        return isinstance(module, tuple(self.modules))

    def name_of(self, module: nn.Module) -> str:
        """The public name of layers like this module."""
        return next(name for covered, name in self.modules.items() if isinstance(module, covered))

    # The operation

    @abstractmethod
    def read(self, operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
        """The operation as a call of a layer of this kind; None if it is none.

        Parameters
        ----------
        operation
            A function of PyTorch, such as ``torch.conv2d``.
        args, kwargs
            What it is called with.
        """

    @abstractmethod
    def apply(self, module: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Do the operation with this weight and bias."""

    # The weight

    @abstractmethod
    def rows(self, module: Any) -> int:
        """Number of output channels C."""

    def groups(self, module: Any) -> int:
        """Number of groups of channels that do not see each other."""
        return 1

    def kernel_size(self, layer: LayerShape) -> tuple[int, ...]:
        """Spatial extent of the kernel; empty where there is none."""
        return ()

    def weight_matrix(self, weight: Tensor, layer: LayerShape) -> Tensor:
        """View a stored weight as [groups, rows per group, fan-in]."""
        return weight.reshape(layer.groups, layer.rows // layer.groups, layer.fan_in)

    def stored_weight(self, matrix: Tensor, layer: LayerShape) -> Tensor:
        """Inverse of :meth:`weight_matrix`: back to the shape that the module stores."""
        return matrix.reshape(layer.shape)

    # Inputs

    def is_batched(self, module: Any, x: Tensor) -> bool:
        """Whether the first dimension of an input counts inputs."""
        return True

    def batched(self, module: Any, x: Tensor) -> Tensor:
        """An input of the module, with a batch dimension."""
        return x if self.is_batched(module, x) else x.unsqueeze(0)

    def arranged(self, module: Any, x: Tensor) -> Tensor:
        """A batched input in the memory layout in which its device multiplies it fastest."""
        return x

    @abstractmethod
    def unfold(self, module: Any, x: Tensor) -> Iterator[Tensor]:
        """Chunks [groups, positions, fan-in] of about ``chunk_elements`` of a module's input."""

    def count_positions(self, module: Any, x: Tensor) -> int:
        """Number of positions that unfolding gives, or about so many."""
        return sum(part.shape[1] for part in self.unfold(module, x))

    def pad(self, module: Any, x: Tensor) -> Tensor:
        """A batched input as a kernel meets it, with all that the module adds around the data."""
        return x

    def mean_patch(self, module: Any, x: Tensor) -> Tensor:
        """Unfolded inputs averaged over the positions of every input, [groups, N, fan-in]."""
        parts = (torch.cat(list(self.unfold(module, one)), dim=1) for one in x.split(1))
        return torch.stack([part.mean(dim=1) for part in parts], dim=1)

    def column_sum(self, module: Any, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Unfolded inputs summed over all positions, [groups, fan-in]."""
        parts = [part.sum(dim=1, dtype=dtype) for part in self.unfold(module, x)]
        return torch.stack(parts).sum(dim=0)

    def cross_sum(self, module: Any, layer: LayerShape, x: Tensor, targets: Tensor) -> Tensor:
        """Σ over positions of target · unfolded inputᵀ, [groups, rows per group, fan-in].

        Parameters
        ----------
        module, layer
            The layer's module and its description.
        x
            What the module is called with.
        targets
            Of the shape of the module's output, and of the inputs' type.
        """
        rows = layer.rows // layer.groups
        total = x.new_zeros(layer.groups, rows, layer.fan_in)
        wanted = self.channel_last(module, targets).unflatten(1, (layer.groups, rows))
        start = 0
        for part in self.unfold(module, x):
            stop = start + part.shape[1]
            total += wanted[start:stop].permute(1, 2, 0) @ part
            start = stop
        return total

    def as_convolution(self, module: Any, x: Tensor) -> tuple[tuple[Axis, ...], Tensor]:
        """The spatial dimensions of a convolution of this weight, and its input [N, C, *spatial].

        Columns of the weight's matrix are in the order channels, then kernel. Padding by zeros
        is left to the dimensions; any other is in the input.
        """
        raise NotImplementedError(f"{self.label} cannot be read as a convolution")

    def offset_axes(self, module: Any, shape: tuple[int, ...]) -> tuple[Axis, ...] | None:
        """Spatial dimensions where second moments consist of blocks for each offset of two taps.

        That is in a convolution as :meth:`as_convolution` reads it, of one group and on batched
        inputs. None elsewhere.

        Parameters
        ----------
        module
            The module.
        shape
            Of its input.
        """
        return None

    # Outputs

    def channel_last(self, module: Any, output: Tensor) -> Tensor:
        """An output as [positions, channels], one row per output position."""
        return output.reshape(-1, output.shape[-1])

    def per_input(self, output: Tensor) -> Tensor:
        """A batched output as [inputs, channels, positions of one input], without a copy.

        Where the positions of an input have no common layout, each counts as an input.
        """
        return output.reshape(-1, output.shape[-1], 1)

    def channel_shape(self, layer: LayerShape) -> tuple[int, ...]:
        """Shape in which a vector over channels broadcasts over an output."""
        return (-1,)
