"""Adaptive Signal Resuscitation (arXiv 2605.21426): variance matching shrunk towards 1."""

from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.layers import Layer
from sparsemend.operators import variance
from sparsemend.operators.operator import Operator


def scale(statistics: OutputStatistics) -> Tensor:
    """g_c = s gamma_c + (1 − s), s = v'_c / (v'_c + lambda), lambda = median_c v'_c."""
    gamma = variance.scale(statistics)
    present = statistics.pruned_variance
    strength = present / (present + present.quantile(0.5, dim=-1, keepdim=True))
    # A layer without any variance left has nothing to scale: 0 / 0 means g = 1.
    return (strength * (gamma - 1) + 1).where(present > 0, present.new_ones(()))


def covers(layer: Layer, first: bool) -> bool:
    """ASR corrects convolutions, the first one excepted."""
    return layer.is_convolution and not first


SHRINKAGE = Operator("shrinkage", scale, covers=covers)
