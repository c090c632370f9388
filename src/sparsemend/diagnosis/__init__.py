"""Where the damage is and whether it can be repaired: Relative Repairability."""

from sparsemend.diagnosis._diagnose import (
    WEIGHTINGS,
    diagnose,
    diagnose_repairs,
    layer_statistics,
)
from sparsemend.diagnosis._diagnosis import Diagnosis
from sparsemend.diagnosis.closed_form import output_statistics

__all__ = [
    "WEIGHTINGS",
    "Diagnosis",
    "diagnose",
    "diagnose_repairs",
    "layer_statistics",
    "output_statistics",
]
