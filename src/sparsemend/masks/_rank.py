"""From scores to exact masks: a ranking of weights, of which the first k are kept."""

from __future__ import annotations

import torch
from torch import Tensor


def descending_rank(score: Tensor) -> Tensor:
    """Rank of every element, 0 for the largest; ties by flat index. Same shape, int64."""
    order = torch.sort(score.flatten(), descending=True, stable=True).indices
    rank = torch.empty_like(order)
    rank[order] = torch.arange(order.numel(), device=order.device)
    return rank.reshape(score.shape)


def keep_mask(rank: Tensor, kept: int) -> Tensor:
    """Boolean mask of the ``kept`` best-ranked weights; exact, and nested in ``kept``."""
    return rank < kept
