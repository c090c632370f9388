"""From scores to exact masks: a ranking of weights, of which the first k are kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_LARGEST = torch.iinfo(torch.int32).max
# Bits that make the bins in which numbers are counted: sign, exponent and the first of the rest.
_COARSE = 16
# Elements of the rows that are sorted at a time.
_SORTED = 1 << 20


def descending_rank(score: Tensor) -> Tensor:
    """Rank of every element, 0 for the largest; ties by flat index. Same shape, int64."""
    order = _descending_order(score.flatten())
    rank = torch.empty_like(order)
    rank.scatter_(0, order, torch.arange(order.numel(), device=order.device))
    return rank.reshape(score.shape)


def rank_within_rows(score: Tensor) -> Tensor:
    """Rank every element of [groups, rows, d] row by row, so that rows keep the same number.

    The best of every row come first, those of earlier rows before others; then the second best.
    Ties within a row by index. Same shape, int64.
    """
    order = torch.sort(score, dim=2, descending=True, stable=True).indices
    places = torch.arange(order.shape[2], device=order.device).expand_as(order)
    within_row = torch.empty_like(order).scatter_(2, order, places)
    rows = score.shape[0] * score.shape[1]
    row = torch.arange(rows, device=order.device).reshape(*score.shape[:2], 1)
    return within_row * rows + row


def best_of_rows(score: Tensor, kept: int) -> Tensor:
    """Boolean mask equal to ``rank_within_rows(score) < kept``, a few rows at a time."""
    rows = score.flatten(0, 1)
    mask = torch.zeros_like(rows, dtype=torch.bool)
    each, more = divmod(kept, len(rows))
    step = max(1, _SORTED // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        order = torch.sort(rows[part], dim=1, descending=True, stable=True).indices
        mask[part].scatter_(1, order[:, :each], True)
        first = max(0, min(more - start, len(order)))  # rows that keep one more
        mask[part][:first].scatter_(1, order[:first, each : each + 1], True)
    return mask.reshape(score.shape)


def _descending_order(score: Tensor) -> Tensor:
    """Indices of a vector's elements from the largest to the smallest, stable."""
    bits = _ordered_bits(score)
    if bits is None:
        return torch.sort(score, descending=True, stable=True).indices
    # Integers are sorted by radix, several times faster.
    return torch.sort(_LARGEST - bits, stable=True).indices


def _ordered_bits(score: Tensor) -> Tensor | None:
    """The bits of numbers in float32 as int32, in the same order; None where some are negative."""
    if score.dtype not in (torch.float32, torch.float16, torch.bfloat16) or not score.numel():
        return None
    bits = (score.float() + 0).view(torch.int32)  # -0 + 0 is 0
    return None if bits.amin() < 0 else bits


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


def entries_by_score(score: Tensor, kept: Sequence[int]) -> Tensor:
    """Equal to ``entry_numbers(descending_rank(score), kept)``, but hardly anything is sorted.

    Scores are counted in bins. Those of a bin that lies within one mask need no order; the few
    bins that a mask cuts are sorted.
    """
    bits = _ordered_bits(score.flatten())
    if bits is None:
        return entry_numbers(descending_rank(score), kept)
    bins = bits >> _COARSE
    sizes = torch.bincount(bins)
    better = sizes.flip(0).cumsum(0).flip(0) - sizes  # elements in higher bins
    counts = torch.tensor(kept, device=score.device)
    dtype = torch.uint8 if len(kept) < 256 else torch.int64
    best = torch.bucketize(better, counts, right=True)
    cut = (best != torch.bucketize(better + sizes - 1, counts, right=True)) & (sizes > 0)
    entries = best.to(dtype).index_select(0, bins)
    places = cut.index_select(0, bins).nonzero().squeeze(1)
    places = places[_descending_order(bits[places].view(torch.float32))]
    # A place in this order, and a bin's elements outside it, make the rank.
    sizes = torch.where(cut, sizes, 0)
    left_out = better - (sizes.flip(0).cumsum(0).flip(0) - sizes)
    rank = torch.arange(len(places), device=score.device) + left_out[bins[places]]
    entries[places] = torch.bucketize(rank, counts, right=True).to(dtype)
    return entries.reshape(score.shape)
