"""Gather the moments of one layer's inputs, each batch in the way that costs least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsemend.calibration._choice import choose_way, count_positions
from sparsemend.calibration.moments import InputMoments, accumulator_dtype
from sparsemend.calibration.offset_blocks import OffsetBlocks
from sparsemend.layers import Layer, unfold

# Up to this part of the fan-in, positions are kept instead of their d × d sums, …
_FEW = 0.5
# … except in narrower layers, where that would save nothing.
_WIDE_FROM = 1025


class MomentsCollector:
    """Accumulates the moments of a layer's inputs; see :mod:`._choice` for the ways.

    Parameters
    ----------
    layer
        The layer.
    device
        Where its inputs are.
    keep_few
        Keep the inputs themselves where there are few positions. That is the faster form for
        products with many sparse matrices, but not if the d × d sums are wanted anyway.
    """

    def __init__(self, layer: Layer, device: torch.device, *, keep_few: bool) -> None:
        self._layer = layer
        self._moments = InputMoments.empty(layer.groups, layer.fan_in, device)
        self._blocks: OffsetBlocks | None = None
        # Inputs wait as long as they are few; None: they are not.
        self._waiting: list[tuple[nn.Module, Tensor]] | None = None
        if keep_few and layer.fan_in >= _WIDE_FROM:
            self._waiting = []
        self._positions = 0

    def add(self, module: nn.Module, x: Tensor) -> None:
        """Add an input of the layer, as its module is called with it."""
        if self._waiting is None:
            self._accumulate(module, x)
            return
        self._positions += count_positions(module, x)
        if self._positions <= _FEW * self._layer.fan_in:
            # A copy: the network may go on to change its activations in place.
            self._waiting.append((module, x.clone()))
            return
        waiting, self._waiting = self._waiting, None
        for earlier in [*waiting, (module, x)]:
            self._accumulate(*earlier)

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        if self._waiting:
            parts = [part for module, x in self._waiting for part in unfold(module, x)]
            return InputMoments.holding(torch.cat(parts, dim=1))
        self._flush()
        return self._moments

    def _accumulate(self, module: nn.Module, x: Tensor) -> None:
        layer = self._layer
        if choose_way(module, layer, tuple(x.shape), layer.fan_in) != "offsets":
            self._moments.update_inputs(module, x)
            return
        if self._blocks is None or self._blocks.shape != x.shape[1:]:
            self._flush()
            self._blocks = OffsetBlocks(module, x, accumulator_dtype(layer.fan_in, x.device))
        self._blocks.add(x)

    def _flush(self) -> None:
        if self._blocks is not None:
            self._moments.add(*self._blocks.moments())
            self._blocks = None
