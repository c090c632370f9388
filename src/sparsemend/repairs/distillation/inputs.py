"""Inputs of the steps of a distillation, drawn from those that repairs see, and changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from sparsemend.execution.augmentation import can_shift, flipped, shifted
from sparsemend.execution.batches import Batch, batch_size, cut, padding_of, plain

# Tokens of one step: of short sequences many come together, of long ones few.
_TOKENS = 1024


def drawn(batches: Sequence[Batch], size: int, generator: torch.Generator) -> Iterator[Batch]:
    """Batches of at most ``size`` inputs without end, all inputs once before any comes again.

    Tensors of one shape are shuffled input by input; of anything else, as of tokens with their
    masks, pieces of the batches as they were given. Of tokens, about 1,024 come together, padding
    left out. Nothing is copied but what is drawn.
    """
    pool = _rows(batches)
    pieces = [] if pool else _pieces(batches, size)
    size = most_at_once(batches, size)
    while True:
        order = torch.randperm(len(pool or pieces), generator=generator).tolist()
        if not pool:
            for index in order:
                yield _changed(pieces[index], generator)
            continue
        for start in range(0, len(order), size):
            rows = [pool[index] for index in order[start : start + size]]
            yield _changed(torch.stack([batches[b][row] for b, row in rows]), generator)


def most_at_once(batches: Sequence[Batch], size: int) -> int:
    """How many inputs a step takes at most: ``size``, of tokens fewer."""
    return max(_at_once(batch, size) for batch in batches)


def _rows(batches: Sequence[Batch]) -> list[tuple[int, int]]:
    """(batch, row) of every input, where all batches are tensors of one shape and type."""
    if not all(isinstance(batch, Tensor) and batch.dim() for batch in batches):
        return []
    if len({(batch.shape[1:], batch.dtype, batch.device) for batch in batches}) > 1:
        return []
    return [(b, row) for b, batch in enumerate(batches) for row in range(len(batch))]


def _pieces(batches: Sequence[Batch], size: int) -> list[Batch]:
    found = []
    for batch in batches:
        count, most = batch_size(batch), _at_once(batch, size)
        number = -(-count // most)
        edges = [count * place // number for place in range(number + 1)]  # of about one size
        found += [cut(batch, *edge) for edge in pairwise(edges)]
    return found


def _at_once(batch: Batch, size: int) -> int:
    """How many inputs of a batch come together, at most ``size``."""
    count = batch_size(batch)
    leaves = [leaf for leaf in tree_leaves(plain(batch)) if isinstance(leaf, Tensor)]
    tokens = [x for x in leaves if x.dim() == 2 and len(x) == count and not x.is_floating_point()]
    if not tokens or any(leaf.is_floating_point() for leaf in leaves):
        return size
    data = padding_of(batch)
    total = tokens[0].numel() if data is None else int(data.sum())
    return max(1, min(size, round(_TOKENS * count / max(1, total))))


def _changed(batch: Batch, generator: torch.Generator) -> Batch:
    """The batch with label-free changes, on which the dense network is asked as well."""
    if not isinstance(batch, Tensor) or not batch.is_floating_point() or batch.dim() < 2:
        return batch
    x = batch
    image = can_shift(x)
    if image:
        x = shifted(flipped(x, generator), generator)
    half = len(x) // 2
    partner = x[torch.randperm(len(x), generator=generator).to(x.device)]
    share = torch.rand(len(x), generator=generator).to(x)
    mixed = _mixed(x[:half], partner[:half], share[:half])
    rest = _pasted(x[half:], partner[half:], share[half:], generator) if image else x[half:]
    return torch.cat([mixed, rest])


def _mixed(x: Tensor, partner: Tensor, share: Tensor) -> Tensor:
    """share · x + (1 − share) · partner (mixup, arXiv 1710.09412)."""
    share = share.reshape(-1, *[1] * (x.dim() - 1))
    return share * x + (1 - share) * partner


def _pasted(x: Tensor, partner: Tensor, share: Tensor, generator: torch.Generator) -> Tensor:
    """A box of 1 − share of each image taken from the partner (cutmix, arXiv 1905.04899)."""
    side = (1 - share).sqrt()
    inside = torch.ones(len(x), 1, 1, dtype=torch.bool, device=x.device)
    for dim, size in enumerate(x.shape[2:]):
        centre = torch.rand(len(x), generator=generator).to(x)
        away = ((torch.arange(size).to(x) + 0.5) / size - centre.unsqueeze(1)).abs()
        near = away <= side.unsqueeze(1) / 2  # [N, size]
        inside = inside & near.reshape(len(x), *((size, 1) if dim == 0 else (1, size)))
    return torch.where(inside.unsqueeze(1), partner, x)
