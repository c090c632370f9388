"""Gather the moments of one layer's inputs, or the inputs themselves where they are few."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsemend.calibration.accumulator import MomentsAccumulator
from sparsemend.calibration.held import HeldInputs, can_hold
from sparsemend.calibration.moments import InputMoments
from sparsemend.calibration.precision import widened
from sparsemend.layers import Layer, count_positions


class MomentsCollector:
    """Collects the moments of a layer's inputs.

    Parameters
    ----------
    layer
        The layer.
    device
        Where its inputs are.
    keep_few
        Hold the inputs themselves where there are no more positions than columns. That is the
        faster form for products with many sparse matrices, but not if the d × d sums are wanted
        anyway.
    """

    def __init__(self, layer: Layer, device: torch.device, *, keep_few: bool) -> None:
        self._layer = layer
        self._sums = MomentsAccumulator(layer, device)
        # Inputs wait as long as they are few; None: they are not.
        self._waiting: list[tuple[nn.Module, Tensor]] | None = [] if keep_few else None
        self._positions = 0
        self._wide = False

    def add(self, module: nn.Module, x: Tensor) -> None:
        """Add an input of the layer, as its module is called with it."""
        holding = self._waiting is not None and can_hold(module, self._layer)
        x = x.double() if self._wide else widened(module, x, held=holding)
        self._wide = self._wide or x.dtype == torch.float64
        if self._waiting is None or not holding:
            self._sums.add(module, x)
            return
        positions = count_positions(module, x)
        if not positions:
            return
        self._positions += positions
        if self._positions <= self._layer.fan_in:
            # A copy: the network may go on to change its activations in place.
            self._waiting.append((module, x.clone()))
            return
        waiting, self._waiting = self._waiting, None
        for earlier in [*waiting, (module, x)]:
            self._sums.add(*earlier)

    def result(self) -> InputMoments:
        """Moments of all that was added."""
        if self._waiting and not self._sums.started:
            return InputMoments.holding(HeldInputs(self._layer, self._waiting))
        for earlier in self._waiting or ():
            self._sums.add(*earlier)
        return self._sums.result()
