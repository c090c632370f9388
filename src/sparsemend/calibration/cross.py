"""Cross moments between a layer's inputs and targets at its outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sparsemend.layers import Layer, kind_of


def cross_sum(module: nn.Module, layer: Layer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over positions of target · unfolded inputᵀ; of half-precision inputs, in float32.

    Parameters
    ----------
    module
        The layer's module.
    layer
        Its description.
    inputs
        What the module is called with.
    targets
        Of the shape of the module's output.

    Returns
    -------
    Tensor
        [groups, rows, d], float32 or better.
    """
    inputs = inputs if inputs.dtype == torch.float64 else inputs.float()
    targets = targets.to(inputs.dtype)
    return kind_of(module).cross_sum(module, layer, inputs, targets)
