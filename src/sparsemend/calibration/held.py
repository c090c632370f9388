"""Inputs of a layer that are kept as they are, because they are fewer than its d × d sums."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sparsemend.calibration.accumulator import MomentsAccumulator
from sparsemend.calibration.moments import InputMoments, mean_dtype
from sparsemend.layers import Axis, Layer, count_positions, kind_of

# Below this fan-in the sums are small, and holding inputs would save nothing.
_HOLD_FROM = 1025


def can_hold(module: nn.Module, layer: Layer) -> bool:
    """Whether inputs of a layer are worth holding, and of a kind that can be read as held."""
    return kind_of(module).reads_as_convolution and layer.fan_in >= _HOLD_FROM


class HeldInputs:
    """Inputs of one layer, not unfolded.

    Parameters
    ----------
    layer
        The layer.
    parts
        Modules and what they were called with.
    """

    def __init__(self, layer: Layer, parts: Sequence[tuple[nn.Module, Tensor]]) -> None:
        self._layer = layer
        self._parts = [(_geometry(module), x) for module, x in parts]
        self.count = sum(count_positions(module, x) for module, x in parts)

    def joined(self, other: HeldInputs) -> HeldInputs | None:
        """These inputs and others; None where together they are too many to be held."""
        if self.count + other.count > self._layer.fan_in:
            return None
        return HeldInputs(self._layer, [*self._parts, *other._parts])

    def to(self, device: torch.device) -> HeldInputs:
        """These inputs on a device."""
        return HeldInputs(self._layer, [(module, x.to(device)) for module, x in self._parts])

    def summed(self) -> InputMoments:
        """Moments with their d × d sums."""
        accumulator = MomentsAccumulator(self._layer, self._device)
        for module, x in self._parts:
            accumulator.add(module, x)
        return accumulator.result()

    def mean_power(self, power: int) -> Tensor:
        """E[x_j ** power] of every unfolded column, [groups, d]."""
        wide = mean_dtype(self._device)
        total = torch.zeros(self._layer.groups, self._layer.fan_in, dtype=wide, device=self._device)
        for module, x in self._parts:
            values = x if x.dtype == torch.float64 else x.float()
            values = values if power == 1 else values**power
            total += kind_of(module).column_sum(module, values, wide)
        return total / self.count

    def as_convolutions(self, group: int) -> Iterator[tuple[tuple[Axis, ...], Tensor]]:
        """One group's inputs [N, C, *spatial], all of one size together, and their dimensions."""
        found: dict[tuple[tuple[Axis, ...], torch.Size], list[Tensor]] = {}
        for module, x in self._parts:
            wide = x if x.dtype == torch.float64 else x.float()
            axes, laid_out = kind_of(module).as_convolution(module, wide)
            channels = laid_out.shape[1] // self._layer.groups
            own = laid_out[:, group * channels : (group + 1) * channels]
            found.setdefault((axes, own.shape[1:]), []).append(own)
        for (axes, _), tensors in found.items():
            yield axes, torch.cat(tensors)

    @property
    def _device(self) -> torch.device:
        return self._parts[0][1].device


def _geometry(module: nn.Module) -> nn.Module:
    """The module without its parameters: what unfolding needs of it."""
    bare = nn.Module.__new__(type(module))
    nn.Module.__init__(bare)
    bare.__dict__.update({k: v for k, v in vars(module).items() if not k.startswith("_")})
    return bare
