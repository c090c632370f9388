"""Wanda (arXiv 2306.11695): weights times the norms of their inputs, compared within a row.

Layer by layer in execution order, with inputs from the network pruned so far; kept weights stay as
they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from benchmarks.peers._walk import prune_in_order
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet
from sparsemend.solvers.ranking import keep_mask, rank_within_rows


def wanda(
    model: nn.Module, batches: Sequence[Batch], layers: LayerSet, allocation: Mapping[str, int]
) -> dict[str, Tensor]:
    """Prune every layer in place to its allocated count; the masks that keep it."""
    return prune_in_order(model, batches, layers, allocation, prune_layer)


def prune_layer(weight: Tensor, second: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Prune one layer; parameters and result as of the other peers."""
    mask = choose(weight, second.diagonal(dim1=1, dim2=2), kept)
    return weight * mask, mask


def choose(weight: Tensor, square: Tensor, kept: int) -> Tensor:
    """The mask of a layer: every row keeps the same number of weights.

    Parameters
    ----------
    weight
        [groups, rows, d].
    square
        Mean squares of the inputs, [groups, d].
    kept
        Number of weights to keep; of what is left over, the first rows keep one more each.
    """
    score = weight.abs() * square.sqrt().unsqueeze(1)
    return keep_mask(rank_within_rows(score), kept)
