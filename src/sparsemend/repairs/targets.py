"""What a layer should output, so that the network behind it sees what it saw when dense.

Everything is in the layer's own pre-activations z, batch by batch in the module's layout. With
a BatchNorm behind the layer, or a scale of its channels in front of a sum, u = a z + c; with a
shortcut s added to it, u = a z + c + s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import Layer, Path, channel_shape

# Below this fraction of the largest slope a channel is switched off: what goes
# through it cannot correct anything.
_FLAT = 1e-4


@dataclass(frozen=True)
class Targets:
    """Targets of one layer.

    Attributes
    ----------
    dense
        Dense pre-activations z, one tensor per batch.
    dense_joined
        Dense u per batch: normalised, with the dense shortcut added where there is one.
    shortcut
        The repaired network's actual shortcut per batch, or None.
    slope, offset
        a and c, shaped to broadcast over the layer's outputs.
    usable
        Channels whose slope is not zero, in the same shape.
    """

    dense: Sequence[Tensor]
    dense_joined: Sequence[Tensor]
    shortcut: Sequence[Tensor] | None
    slope: Tensor
    offset: Tensor
    usable: Tensor

    def first(self) -> list[Tensor]:
        """The dense outputs, less what the actual shortcut already has wrong."""
        if self.shortcut is None:
            return list(self.dense)
        return [
            self._back(joined - shortcut, z)
            for joined, shortcut, z in zip(
                self.dense_joined, self.shortcut, self.dense, strict=True
            )
        ]

    def change(self, index: int, part: slice, output: Tensor) -> Tensor:
        """From the first targets of some of a batch to those that only a ReLU will see.

        Where the dense unit is off, anything below zero is as good: the target is the present
        value if that is negative, else zero. Least squares on these targets never increases the
        mean of (u − u_dense)² where the dense unit is on and relu(u)² where it is off, which
        bounds E(relu(u) − relu(u_dense))² from above: they majorise it at the present outputs.

        Parameters
        ----------
        index, part
            Number of the batch, and which of its inputs.
        output
            The layer's present output for these; overwritten: with as many refits, passes over
            memory count.
        """
        joined = self.dense_joined[index][part]
        present = output.mul_(self.slope).add_(self.offset)
        if self.shortcut is not None:
            present += self.shortcut[index][part]
        change = present.clamp_(max=0).sub_(joined).masked_fill_(joined > 0, 0)
        change.div_(self._divisor)
        return change if self._all_usable else change.mul_(self.usable)

    def _back(self, normalised: Tensor, fallback: Tensor) -> Tensor:
        """Pre-activations of normalised outputs, which are overwritten."""
        found = normalised.sub_(self.offset).div_(self._divisor)
        return found if self._all_usable else torch.where(self.usable, found, fallback)

    # Once for all batches and refits: a device is asked for the second.

    @cached_property
    def _divisor(self) -> Tensor:
        return torch.where(self.usable, self.slope, 1)

    @cached_property
    def _all_usable(self) -> bool:
        return bool(self.usable.all())


def norm_affine(
    model: nn.Module, layer: Layer, device: torch.device, path: Path | None = None
) -> tuple[Tensor, Tensor, Tensor] | None:
    """Slope, offset and usable channels of what follows a layer, shaped like its outputs.

    With the path to a sum, its scale is part of both. None where the normalisation is not a fixed
    affine map of every channel.
    """
    shape = channel_shape(layer)
    factor = None if path is None else path_scale(model, path, device)
    if layer.norm is None:
        slope = torch.ones((1,), device=device) if factor is None else factor
        offset = torch.zeros_like(slope)
        return slope.reshape(shape), offset.reshape(shape), _usable(slope).reshape(shape)
    norm = model.get_submodule(layer.norm)
    if not isinstance(norm, _BatchNorm) or norm.running_var is None or norm.running_mean is None:
        return None
    slope = (norm.running_var.float() + norm.eps).rsqrt()
    if norm.weight is not None:
        slope = slope * norm.weight.float()
    offset = -norm.running_mean.float() * slope
    if norm.bias is not None:
        offset = offset + norm.bias.float()
    if factor is not None:
        slope, offset = factor * slope, factor * offset
    return slope.reshape(shape), offset.reshape(shape), _usable(slope).reshape(shape)


def _usable(slope: Tensor) -> Tensor:
    return slope.abs() > _FLAT * slope.abs().max()


def path_scale(model: nn.Module, path: Path, device: torch.device) -> Tensor | None:
    """What outputs are multiplied with on their way to a sum, [C] or [1]; None for nothing."""
    scale = None
    for part in path.scale:
        value = torch.tensor([part]) if isinstance(part, float) else part.of(model).flatten()
        value = value.to(device).float()
        scale = value if scale is None else scale * value
    return scale
