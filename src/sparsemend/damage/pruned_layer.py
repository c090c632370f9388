"""A layer pruned to several densities: what the residual of a repair follows from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from sparsemend.calibration import LayerMoments, OutputStatistics
from sparsemend.layers import Layer


@dataclass(frozen=True)
class PrunedLayer:
    """One layer at K densities.

    Attributes
    ----------
    layer
        Its description.
    dense
        Dense weights, [groups, rows, d].
    statistics
        Paired statistics of dense and pruned outputs, [K, C].
    moments
        Of its dense inputs.
    masks
        The K masks [groups, rows, d], one at a time, as often as they are asked for.
    """

    layer: Layer
    dense: Tensor
    statistics: OutputStatistics
    moments: LayerMoments
    masks: Iterable[Tensor]
