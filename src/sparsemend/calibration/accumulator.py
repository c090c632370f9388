"""Sum the moments of one layer's inputs, each batch in the way that costs least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsemend.calibration._choice import choose_way
from sparsemend.calibration.moments import InputMoments, accumulator_dtype
from sparsemend.calibration.offset_blocks import OffsetBlocks
from sparsemend.layers import Layer


class MomentsAccumulator:
    """Accumulates d × d sums; see :mod:`._choice` for the ways.

    Parameters
    ----------
    layer
        The layer.
    device
        Where its inputs are.
    """

    def __init__(self, layer: Layer, device: torch.device) -> None:
        self._layer = layer
        self._moments = InputMoments.empty(layer.groups, layer.fan_in, device)
        self._blocks: OffsetBlocks | None = None

    @property
    def started(self) -> bool:
        """Whether anything was added."""
        return self._blocks is not None or self._moments.count > 0

    def add(self, module: nn.Module, x: Tensor) -> None:
        """Add an input of the layer, as its module is called with it."""
        layer = self._layer
        if choose_way(module, layer, tuple(x.shape), layer.fan_in) != "offsets":
            self._moments.update_inputs(module, x)
            return
        if self._blocks is None or self._blocks.shape != x.shape[1:]:
            self._flush()
            self._blocks = OffsetBlocks(module, x, accumulator_dtype(layer.fan_in, x.device))
        self._blocks.add(x)

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        self._flush()
        return self._moments

    def _flush(self) -> None:
        if self._blocks is not None:
            self._moments.add(*self._blocks.moments())
            self._blocks = None
