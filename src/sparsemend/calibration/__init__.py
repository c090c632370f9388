"""What calibration data says about every layer: additive, mergeable moments."""

from sparsemend.calibration.calibration import Calibration, LayerMoments, WideLayerMoments
from sparsemend.calibration.gather import MAX_FAN_IN, Limits, calibrate, gather_moments
from sparsemend.calibration.grid import DEFAULT_DENSITIES, check_densities, kept_count
from sparsemend.calibration.held import HeldInputs
from sparsemend.calibration.moments import InputMoments, PairedMoments
from sparsemend.calibration.statistics import OutputStatistics

__all__ = [
    "DEFAULT_DENSITIES",
    "MAX_FAN_IN",
    "Calibration",
    "HeldInputs",
    "InputMoments",
    "LayerMoments",
    "Limits",
    "OutputStatistics",
    "PairedMoments",
    "WideLayerMoments",
    "calibrate",
    "check_densities",
    "gather_moments",
    "kept_count",
]
