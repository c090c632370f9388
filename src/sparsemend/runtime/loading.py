"""Networks from packed files, ready to run."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.graphs import Graph, Traced
from sparsemend.packed import read_packed
from sparsemend.runtime.prepared import Prepared, prepare_traced

_LARGEST = 2**31
"""Numbers of one value: what a hostile file asks for is not computed."""


@public
def load(
    path: str | os.PathLike[str],
    example: Tensor | Sequence[Tensor] | None = None,
    *,
    threads: int = 1,
    instructions: str | None = None,
) -> Prepared:
    """Load a packed network and make it ready to run on the CPU.

    Parameters
    ----------
    path
        A file that ``sm.export(..., format="packed", example=...)`` wrote.
    example
        Input of the shape to run on, or several; the shape of the export by default. Other batches
        are always possible, other sizes where the network takes them.
    threads, instructions
        As in :func:`prepare`.

    Returns
    -------
    Prepared
        Takes the network's inputs and returns its output, or a tuple of them.

    Raises
    ------
    SparsemendError
        If the file is no packed network, is damaged, or holds the weights alone.
    """
    packed = read_packed(path)
    if packed.graph is None:
        raise SparsemendError(
            f"{str(path)!r} holds the weights alone",
            fix="load its state_dict() into the network, or export it with an example",
        )
    graph = packed.graph
    given = [example] if isinstance(example, Tensor) else example
    inputs = graph.blank_inputs() if given is None else given
    _check(graph, inputs, str(path))
    values = tuple(inputs)
    outputs = (
        torch.zeros(()) if len(graph.outputs) == 1 else (torch.zeros(()),) * len(graph.outputs)
    )
    traced = Traced(graph, tree_flatten((values, {}))[1], tree_flatten(outputs)[1])
    return prepare_traced(traced, (values, {}), threads=threads, instructions=instructions)


def _check(graph: Graph, inputs: Sequence[Tensor], path: str) -> None:
    """Refuse a graph that cannot run, before any memory is taken for it."""
    for name, shape in graph.shapes(inputs).items():
        if math.prod(shape) > _LARGEST:
            raise SparsemendError(f"value {name!r} in {path!r} is far too large", shape)
