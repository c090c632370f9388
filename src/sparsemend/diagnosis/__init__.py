"""Where the damage is and whether it can be repaired: Relative Repairability."""

from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.grid_masks import GridMasks
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
    "GridMasks",
    "diagnose",
    "diagnose_repairs",
    "recipe_diagnosis",
    "with_sensitivities",
]
