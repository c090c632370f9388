"""Undo what a label-free repair can undo: operators, reconstruction, BatchNorm.

A channelwise operator is one file in ``operators/``; how repairs are combined is ``_plan``; what
they do to a network is ``_channelwise``, ``_reconstruct`` and ``batchnorm``; ``_run`` puts the
parts of a plan together.
"""

from sparsemend.repairs.batchnorm import has_running_norms, recalibrate, running_norms
from sparsemend.repairs.fit import Settings
from sparsemend.repairs.formula import SCOPES, RepairPlan, parse_repair, repair_names
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.reconstruction import Reconstruction, reconstruct
from sparsemend.repairs.run import Outcome, Support, check_plan, check_scope, run_plan

__all__ = [
    "SCOPES",
    "Outcome",
    "Reconstruction",
    "RepairPlan",
    "Settings",
    "Support",
    "channel_importance",
    "check_plan",
    "check_scope",
    "has_running_norms",
    "parse_repair",
    "recalibrate",
    "reconstruct",
    "repair_names",
    "run_plan",
    "running_norms",
]
