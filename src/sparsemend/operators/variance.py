"""Channelwise variance matching, the repair of Relative Repairability (arXiv 2605.25508)."""

from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.operators.operator import Operator, matching_scale


def scale(statistics: OutputStatistics) -> Tensor:
    """g_c = sqrt(v_c / (v'_c + eps))."""
    return matching_scale(statistics.dense_variance, statistics.pruned_variance)


VARIANCE = Operator("variance", scale, ending=True)
