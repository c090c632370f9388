"""Execution graphs: what a network computes, as a list of operations on named values."""

from sparsemend.graphs.branches import without_idle_branches
from sparsemend.graphs.counting import multiplications
from sparsemend.graphs.folding import fold
from sparsemend.graphs.graph import Graph, Node
from sparsemend.graphs.modules import to_module
from sparsemend.graphs.shrinking import shrink
from sparsemend.graphs.tracing import Traced, trace

__all__ = [
    "Graph",
    "Node",
    "Traced",
    "fold",
    "multiplications",
    "shrink",
    "to_module",
    "trace",
    "without_idle_branches",
]
