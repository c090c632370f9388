"""Choosing an allocation without labels, by closeness to the dense network on unseen inputs."""

from sparsemend.search.allocations import damage_curves, find_allocation
from sparsemend.search.objective import start_support
from sparsemend.search.result import AllocationSearch, Trial

__all__ = ["AllocationSearch", "Trial", "damage_curves", "find_allocation", "start_support"]
