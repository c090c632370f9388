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
        way = choose_way(module, layer, tuple(x.shape), layer.fan_in)
        if way == "unfolding":
            self._moments.update_inputs(module, x)
            return
        whole = way == "whole maps"
        blocks = self._blocks
        if blocks is None or blocks.shape != x.shape[1:] or blocks.whole != whole:
            self._flush()
            kind = accumulator_dtype(layer.fan_in, x.device)
            self._blocks = blocks = OffsetBlocks(module, x, kind, whole=whole)
        blocks.add(x)

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        self._flush()
        return self._moments

    def _flush(self) -> None:
        if self._blocks is not None:
            self._moments.add(*self._blocks.moments())
            self._blocks = None
