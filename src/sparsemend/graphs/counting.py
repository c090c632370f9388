"""How often the layers of a graph multiply."""

from __future__ import annotations

import math

from sparsemend.graphs.graph import Graph
from sparsemend.graphs.operations import Convolution, Linear


def multiplications(graph: Graph, *, nonzero: bool = False) -> dict[str, int]:
    """Name of a layer → multiplications of its weights, for the batch that was traced.

    Calls of one layer are added up.

    Parameters
    ----------
    graph
        As traced, or what has become of that.
    nonzero
        Whether zeros are skipped.
    """
    shapes = graph.traced_shapes()
    found: dict[str, int] = {}
    for node in graph:
        operation = node.operation
        if isinstance(operation, Convolution | Linear):
            weight = operation.weight
            positions = math.prod(shapes[node.name]) // len(weight)
            used = int(weight.count_nonzero()) if nonzero else weight.numel()
            name = node.name.split("#")[0]
            found[name] = found.get(name, 0) + positions * used
    return found
