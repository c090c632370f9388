"""What a repair operator is: a scale per output channel, read off paired statistics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.layers import Layer

ScaleRule = Callable[[OutputStatistics], Tensor]

# Keeps sqrt(v / v') finite where pruning emptied a channel; relative to v itself, so that it
# depends on no channel's scale.
RELATIVE_EPS = 1e-10


def any_layer(layer: Layer, first: bool) -> bool:  # noqa: ARG001 (the signature of `covers`)
    """The repair applies to every layer."""
    return True


@dataclass(frozen=True)
class Operator:
    """A channelwise repair z' → g z' + h (method, section 2).

    Attributes
    ----------
    name
        As in the table of the method and in the registry.
    scale
        Statistics [..., C] → g, broadcastable to [..., C].
    matches_mean
        Whether it does anything: h then moves the mean to the dense one. Otherwise layers stay as
        they are, and the scale has to be 1.
    covers
        (layer, whether it is the first convolution) → whether a repair touches the layer.
    positive
        Whether g is never negative, so that pooled BatchNorm statistics behind the layer
        cancel the repair up to their eps.
    ending
        Whether repair ``best`` tries it.
    """

    name: str
    scale: ScaleRule
    matches_mean: bool = True
    covers: Callable[[Layer, bool], bool] = any_layer
    positive: bool = True
    ending: bool = False

    def gains(self, statistics: OutputStatistics) -> Tensor:
        """g of every channel, [..., C]."""
        return self.scale(statistics).expand_as(statistics.pruned_variance)

    def residual(self, statistics: OutputStatistics) -> Tensor:
        """D_rep per channel, [..., C]: E(g z' + h − z)² in closed form."""
        if not self.matches_mean:
            return statistics.raw_distortion
        return statistics.residual_distortion(self.scale(statistics))


def matching_scale(wanted: Tensor, present: Tensor) -> Tensor:
    """sqrt(wanted / (present + eps)), and 1 where there is no variance at all."""
    denominator = present + RELATIVE_EPS * wanted
    return (wanted / denominator).sqrt().where(denominator > 0, wanted.new_ones(()))
