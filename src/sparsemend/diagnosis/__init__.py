"""Where the damage is and whether it can be repaired: Relative Repairability."""

from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.layer_damage import layer_statistics
from sparsemend.diagnosis.relative_repairability import (
    WEIGHTINGS,
    diagnose,
    diagnose_repairs,
    session_diagnosis,
)
from sparsemend.diagnosis.sensitivity import with_sensitivities

__all__ = [
    "WEIGHTINGS",
    "Diagnosis",
    "diagnose",
    "diagnose_repairs",
    "layer_statistics",
    "session_diagnosis",
    "with_sensitivities",
]
