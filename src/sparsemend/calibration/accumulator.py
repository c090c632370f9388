"""Sum the moments of one layer's inputs, each batch in the way that costs least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsemend.calibration.choice import choose_way
from sparsemend.calibration.moments import InputMoments, accumulator_dtype
from sparsemend.calibration.offset_blocks import OffsetBlocks
from sparsemend.execution.threads import threaded_map
from sparsemend.layers import Layer

# A thread of its own needs so many inputs to be worth its accumulator.
_SHARE = 16


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
        self._blocks: list[OffsetBlocks] = []  # one for each thread that adds
        self._shape, self._type = torch.Size(), torch.float32  # of what they add

    @property
    def started(self) -> bool:
        """Whether anything was added."""
        return bool(self._blocks) or self._moments.count > 0

    def add(self, module: nn.Module, x: Tensor) -> None:
        """Add an input of the layer, as its module is called with it."""
        layer = self._layer
        # Inputs of the size seen last are added in the way chosen then, whatever their number.
        if not self._blocks or (self._shape, self._type) != (x.shape[1:], x.dtype):
            self._flush()
            self._shape, self._type = x.shape[1:], x.dtype
            way = choose_way(module, tuple(x.shape), x.device)
            if way == "unfolding":
                self._moments.update_inputs(module, x)
                return
            kind = accumulator_dtype(layer.fan_in, x.device)
            self._blocks.append(OffsetBlocks(module, x, kind, whole=way == "whole maps"))
        threads = torch.get_num_threads() if x.device.type == "cpu" else 1
        parts = x.chunk(max(1, min(threads, len(x) // _SHARE)))
        while len(self._blocks) < len(parts):
            self._blocks.append(self._blocks[0].twin())
        threaded_map(lambda pair: pair[0].add(pair[1]), zip(self._blocks, parts, strict=False))

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        self._flush()
        return self._moments

    def _flush(self) -> None:
        if self._blocks:
            first, *others = self._blocks
            self._blocks = []
            for other in others:
                first.absorb(other)
            self._moments.add(*first.moments())
