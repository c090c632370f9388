"""Changes of images that need no label: the dense network is asked about what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeGuard

import torch
from torch import Tensor
from torch.nn import functional as F

from sparsemend.execution.batches import Batch

# Images are shifted by up to this part of them, and smaller ones not at all.
_PART = 8


def mirrored(batches: Sequence[Batch]) -> list[Tensor] | None:
    """The batches and their mirror images (left and right exchanged); None unless all are images.

    Images are floating-point tensors [N, C, H, W].
    """
    if not _are_images(batches):
        return None
    return [*batches, *(batch.flip(-1) for batch in batches)]


def augmented(batches: Sequence[Batch], copies: int, seed: int = 0) -> list[Tensor] | None:
    """The batches and changed copies of all of them; None unless all are images.

    Parameters
    ----------
    batches
        Floating-point tensors [N, C, H, W].
    copies
        How many times each image comes again: half of them mirrored, all of them shifted by up
        to an eighth, with zeros coming in.
    seed
        Draws the changes.
    """
    if not _are_images(batches):
        return None
    generator = torch.Generator().manual_seed(seed)
    again = [batch for _ in range(copies) for batch in batches]
    return [*batches, *(shifted(flipped(batch, generator), generator) for batch in again)]


def can_shift(batch: Tensor) -> bool:
    """Whether these are images that are large enough to be shifted."""
    return batch.dim() == 4 and min(batch.shape[2:]) >= _PART


def flipped(x: Tensor, generator: torch.Generator) -> Tensor:
    """Half of the images [N, C, H, W] left to right."""
    chosen = torch.rand(len(x), generator=generator) < 0.5
    return torch.where(chosen.to(x.device).reshape(-1, 1, 1, 1), x.flip(-1), x)


def shifted(x: Tensor, generator: torch.Generator) -> Tensor:
    """Each image [N, C, H, W] shifted by up to an eighth, with zeros coming in."""
    count, _, height, width = x.shape
    up, left = height // _PART, width // _PART
    rows = torch.randint(0, 2 * up + 1, (count, 1), generator=generator) + torch.arange(height)
    columns = torch.randint(0, 2 * left + 1, (count, 1), generator=generator) + torch.arange(width)
    padded = F.pad(x, (left, left, up, up)).permute(0, 2, 3, 1)
    one = torch.arange(count).reshape(-1, 1, 1)
    return padded[one, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2).contiguous()


def _are_images(batches: Sequence[Batch]) -> TypeGuard[Sequence[Tensor]]:
    return all(isinstance(b, Tensor) and b.dim() == 4 and b.is_floating_point() for b in batches)
