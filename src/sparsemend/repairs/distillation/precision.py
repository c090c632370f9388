"""Whether a machine is faster in bfloat16: measured once, on a convolution."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch.nn import functional as F

from sparsemend.execution.stopwatch import best_time

# Networks with fewer trained values are not worth the casts.
_LEAST_VALUES = 10_000
# So much faster it has to be: casts cost too, and two runs must not choose differently.
_FASTER = 1.5
_ROUNDS = 5


def half_pays(device: torch.device, values: int) -> bool:
    """Whether to train in bfloat16 autocast, weights and losses staying in float32."""
    return values >= _LEAST_VALUES and device.type in ("cpu", "cuda") and _half_is_faster(device)


@lru_cache
def _half_is_faster(device: torch.device) -> bool:
    x = torch.ones(64, 32, 16, 16, device=device)
    weight = torch.ones(32, 32, 3, 3, device=device)
    single = _seconds(x, weight)
    return single > _FASTER * _seconds(x.bfloat16(), weight.bfloat16())


def _seconds(x: torch.Tensor, weight: torch.Tensor) -> float:
    # item() waits for the device
    with torch.no_grad():
        return best_time(lambda: F.conv2d(x, weight, padding=1).sum().item(), _ROUNDS)
