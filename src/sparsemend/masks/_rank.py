"""From scores to exact masks: a ranking of weights, of which the first k are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def descending_rank(score: Tensor) -> Tensor:
    """Rank of every element, 0 for the largest; ties by flat index. Same shape, int64."""
    order = _descending_order(score.flatten())
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return rank.reshape(score.shape)


def _descending_order(score: Tensor) -> Tensor:
    """Indices of a vector's elements from the largest to the smallest, stable."""
    if score.dtype in (torch.float32, torch.float16, torch.bfloat16) and not (score < 0).any():
        # The bits of numbers that are not negative are in their order (adding 0 turns -0 into
        # 0), and integers are sorted by radix, several times faster.
        bits = (score.float() + 0).view(torch.int32)
        return torch.sort(torch.iinfo(torch.int32).max - bits, stable=True).indices
    return torch.sort(score, descending=True, stable=True).indices


def keep_mask(rank: Tensor, kept: int) -> Tensor:
    """Boolean mask of the ``kept`` best-ranked weights; exact, and nested in ``kept``."""
    return rank < kept


def entry_numbers(rank: Tensor, kept: Sequence[int]) -> Tensor:
    """Which of the nested masks is the first to hold each weight.

    Parameters
    ----------
    rank
        Rank of every weight.
    kept
        K ascending counts.

    Returns
    -------
    Tensor
        Numbers from 0 to K - 1 in the shape of ``rank``, and K where no mask holds the weight;
        uint8 if they fit, int64 otherwise.
    """
    dtype = torch.uint8 if len(kept) < 256 else torch.int64
    counts = torch.tensor([0, *kept, rank.numel()])
    numbers = torch.arange(len(kept) + 1, dtype=dtype)
    by_rank = torch.repeat_interleave(numbers, counts.diff()).to(rank.device)
    return by_rank.take(rank)
