"""Least-squares scale and shift of every channel."""

from torch import Tensor

from sparsemend.calibration.statistics import OutputStatistics
from sparsemend.operators.operator import Operator


def scale(statistics: OutputStatistics) -> Tensor:
    """g_c = q_c / v'_c, written as 1 − (v'_c − q_c) / v'_c; 1 where v'_c = 0."""
    present = statistics.pruned_variance
    alive = present > 0
    excess = statistics.error_covariance / present.where(alive, present.new_ones(()))
    return 1 - excess.where(alive, present.new_zeros(()))


AFFINE = Operator("affine", scale, positive=False)
