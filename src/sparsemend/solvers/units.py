"""Units in which float32 can hold what is computed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# Squares of numbers within these powers of two, and their sums, are normal numbers in float32.
_LEAST, _MOST = -32, 32


def unit_of(*tensors: Tensor) -> float:
    """The power of two below the largest magnitude, where float32 cannot hold its square; else 1.

    Dividing by it is exact, so that results do not depend on the unit of what is measured.
    """
    # All are begun before the first is read: an accelerator is waited for once.
    extremes = [
        torch.stack(torch.aminmax(_in_memory_order(t.detach()))) for t in tensors if t.numel()
    ]
    largest = 0.0
    for found in extremes:
        low, high = found.tolist()
        largest = max(largest, -low, high)
    if not 0 < largest < math.inf:
        return 1.0
    exponent = math.frexp(largest)[1] - 1
    # The inverse is a number in float32, too.
    return 1.0 if _LEAST <= exponent <= _MOST else math.ldexp(1.0, max(-126, min(126, exponent)))


def _in_memory_order(tensor: Tensor) -> Tensor:
    """The same elements, dimensions ordered as they lie in memory: read ten times as fast."""
    return tensor.permute(sorted(range(tensor.dim()), key=tensor.stride, reverse=True))
