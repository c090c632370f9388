"""Layerwise variance matching: one scale for all channels of a layer."""

from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.operators.operator import Operator, matching_scale


def scale(statistics: OutputStatistics) -> Tensor:
    """g = sqrt(mean_c v_c / (mean_c v'_c + eps))."""
    wanted = statistics.dense_variance.mean(dim=-1, keepdim=True)
    present = statistics.pruned_variance.mean(dim=-1, keepdim=True)
    return matching_scale(wanted, present).expand_as(statistics.pruned_variance)


LAYERWISE = Operator("layerwise", scale)
