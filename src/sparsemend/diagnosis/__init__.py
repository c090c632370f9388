"""Where the damage is and whether it can be repaired: Relative Repairability."""

from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.relative_repairability import (
    WEIGHTINGS,
    diagnose,
    diagnose_repairs,
    layer_statistics,
    session_diagnosis,
)

__all__ = [
    "WEIGHTINGS",
    "Diagnosis",
    "diagnose",
    "diagnose_repairs",
    "layer_statistics",
    "session_diagnosis",
]
