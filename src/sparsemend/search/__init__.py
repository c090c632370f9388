"""Choosing an allocation without labels, by closeness to the dense network on unseen inputs."""

from sparsemend.search.allocations import find_allocation
from sparsemend.search.branches import branch_allocation, divided_again
from sparsemend.search.objective import start_support
from sparsemend.search.result import AllocationSearch, Trial

__all__ = [
    "AllocationSearch",
    "Trial",
    "branch_allocation",
    "divided_again",
    "find_allocation",
    "start_support",
]
