"""Undo what a label-free repair can undo: operators, reconstruction, BatchNorm.

What a repair is, says ``repair.py``; which there are, ``registry.py``; how they are combined,
``formula.py``. Every channelwise operator in ``operators/`` is a repair too.
"""

from sparsemend.repairs.adoption import adopt
from sparsemend.repairs.batchnorm import has_running_norms, recalibrate, running_norms
from sparsemend.repairs.distillation.inputs import most_at_once
from sparsemend.repairs.distillation.pace import step_seconds
from sparsemend.repairs.distillation.settings import DistillSettings
from sparsemend.repairs.fit import EFFORTS, FitSettings
from sparsemend.repairs.fold import unshiftable
from sparsemend.repairs.formula import Formula, parse_repair
from sparsemend.repairs.registry import REPAIRS, get_repair, repair_names, repairs
from sparsemend.repairs.repair import SCOPES, Outcome, Repair, Restored, Support, Terms

__all__ = [
    "EFFORTS",
    "REPAIRS",
    "SCOPES",
    "DistillSettings",
    "FitSettings",
    "Formula",
    "Outcome",
    "Repair",
    "Restored",
    "Support",
    "Terms",
    "adopt",
    "get_repair",
    "has_running_norms",
    "most_at_once",
    "parse_repair",
    "recalibrate",
    "repair_names",
    "repairs",
    "running_norms",
    "step_seconds",
    "unshiftable",
]
