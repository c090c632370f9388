"""Where the damage is and whether it can be repaired: Relative Repairability."""

from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.layer_damage import layer_statistics
from sparsemend.diagnosis.recipes import recipe_diagnosis
from sparsemend.diagnosis.relative_repairability import (
    WEIGHTINGS,
    diagnose,
    diagnose_repairs,
)
from sparsemend.diagnosis.sensitivity import with_sensitivities

__all__ = [
    "WEIGHTINGS",
    "Diagnosis",
    "diagnose",
    "diagnose_repairs",
    "layer_statistics",
    "recipe_diagnosis",
    "with_sensitivities",
]
