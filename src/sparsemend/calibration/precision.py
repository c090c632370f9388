"""Which inputs of a layer need float64 for exact moments.

Moments are computed in float32 from data less a constant near each channel's mean, which leaves
nothing to cancel but in two cases. Where padding puts zeros beside values far from zero, columns
vary as widely as their mean is large, and outputs in which that cancels are what rounding leaves.
And squares of very small or very large values leave the range of float32.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from sparsemend.layers import kind_of
from sparsemend.solvers.units import unit_of

# How many deviations a mean must be away from zero: beside zeros, and elsewhere. Channels of
# trained networks stay below 4.
_FAR_FROM_ZEROS, _FAR = 32.0, 1024.0
# Inputs that are looked at; of fewer positions than these, some are close to each other by chance.
_SAMPLE = 16
_ENOUGH = 8


def widened(module: nn.Module, x: Tensor, *, held: bool = False) -> Tensor:
    """A layer's input in float64 if its moments need that, else as it is.

    Looks at means and deviations of the channels of some inputs, and at the largest magnitude.

    Parameters
    ----------
    module
        The layer's module.
    x
        Its input.
    held
        Whether inputs are kept, so that what is computed from them is not centred before.
    """
    if x.dtype == torch.float64 or x.device.type == "mps" or not x.numel():
        return x
    return x.double() if unit_of(x) != 1 or _is_far(module, x, held) else x


def _is_far(module: nn.Module, x: Tensor, held: bool) -> bool:
    """Whether some channel's mean exceeds its deviation by far."""
    kind = kind_of(module)
    x = kind.batched(module, x)
    sample = x[:: max(1, len(x) // _SAMPLE)]
    columns = sample.movedim(1 if kind.is_convolution else -1, 0).flatten(1)
    count = columns.shape[1]
    if count < 2:
        return False
    variance, mean = torch.var_mean(columns.double(), dim=1, correction=0)
    padded = kind.pad(module, sample[:1]).shape != sample[:1].shape
    far = _FAR_FROM_ZEROS if padded or held else _FAR
    far *= 1 if count >= _ENOUGH else _FAR
    # A constant loses no deviation of its own, but where it meets zeros those of others.
    typical = variance.mean() if padded else math.inf
    beyond = mean.square() > far**2 * torch.where(variance > 0, variance, typical)
    return bool(beyond.any())
