"""Undo what a light, label-free repair can undo: channelwise operators and BatchNorm."""

from sparsemend.repair._plan import SCOPES, RepairPlan, parse_repair, repair_names
from sparsemend.repair._repair import check_plan, check_scope, repair, run_plan
from sparsemend.repair.batchnorm import recalibrate

__all__ = [
    "SCOPES",
    "RepairPlan",
    "check_plan",
    "check_scope",
    "parse_repair",
    "recalibrate",
    "repair",
    "repair_names",
    "run_plan",
]
