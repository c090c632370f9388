"""Choosing without labels: the judge is closeness to the dense network on unseen inputs."""

from sparsemend.search.allocations import AUTO, damage_curves, find_allocation
from sparsemend.search.best import Best, hold_out, repair_best
from sparsemend.search.budget import Budget, parse_budget
from sparsemend.search.objective import start_support
from sparsemend.search.result import AllocationSearch, Trial

__all__ = [
    "AUTO",
    "AllocationSearch",
    "Best",
    "Budget",
    "Trial",
    "damage_curves",
    "find_allocation",
    "hold_out",
    "parse_budget",
    "repair_best",
    "start_support",
]
