"""Allocation: how many weights each layer keeps under one global budget.

A rule is a function from a :class:`Problem` (layers, weights, budget, diagnosis) to one kept
count per layer that adds up to ``problem.keep``; its options are keyword-only arguments. To
add one, write it in a file of its own with its record, a :class:`Rule`, at the end, and enter
that in :data:`RULES` in :mod:`sparsemend.allocation.registry`.
"""

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.budget import kept_total, round_to_budget, water_fill
from sparsemend.allocation.densities import GIVEN, Densities, load_rule
from sparsemend.allocation.divide import allocate_layers, check_pattern
from sparsemend.allocation.forced import ForcedRule, force_layers, parse_forced
from sparsemend.allocation.problem import DamageCurves, Problem
from sparsemend.allocation.quota import CostQuota, Quota, WeightQuota, added_up
from sparsemend.allocation.registry import (
    RULES,
    check_rule,
    get_rule,
    needs_columns,
    needs_diagnosis,
    needs_sensitivities,
    rule_names,
)
from sparsemend.allocation.rule import Rule
from sparsemend.allocation.whole_units import hold_to_patterns
from sparsemend.allocation.without import allocate_without

__all__ = [
    "GIVEN",
    "RULES",
    "Allocation",
    "CostQuota",
    "DamageCurves",
    "Densities",
    "ForcedRule",
    "Problem",
    "Quota",
    "Rule",
    "WeightQuota",
    "added_up",
    "allocate_layers",
    "allocate_without",
    "check_pattern",
    "check_rule",
    "force_layers",
    "get_rule",
    "hold_to_patterns",
    "kept_total",
    "load_rule",
    "needs_columns",
    "needs_diagnosis",
    "needs_sensitivities",
    "parse_forced",
    "round_to_budget",
    "rule_names",
    "water_fill",
]
