"""Cross moments between a layer's inputs and targets at its outputs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.layers import Layer, pad_input, weight_matrix

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def cross_sum(module: nn.Module, layer: Layer, inputs: Tensor, targets: Tensor) -> Tensor:
    """Σ over positions of target · unfolded inputᵀ, without unfolding anything.

    For a convolution this sum is what its backward pass computes for the weights, so the
    framework's own kernel does it, for every stride, padding, dilation and group.

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
    if isinstance(module, nn.Linear):
        rows = targets.reshape(-1, targets.shape[-1])
        return (rows.mT @ inputs.reshape(-1, inputs.shape[-1])).unsqueeze(0)
    conv: Any = module
    dims = len(conv.kernel_size)
    if inputs.dim() == dims + 1:
        inputs, targets = inputs.unsqueeze(0), targets.unsqueeze(0)
    transposed = isinstance(module, _TRANSPOSED)
    _, gradient, _ = torch.ops.aten.convolution_backward(
        targets,
        inputs if transposed else pad_input(module, inputs),
        torch.empty(layer.shape, dtype=inputs.dtype, device=inputs.device),
        None,
        conv.stride,
        conv.padding if transposed else (0,) * dims,
        conv.dilation,
        transposed,
        conv.output_padding if transposed else (0,) * dims,
        conv.groups,
        (False, True, False),
    )
    return weight_matrix(gradient, layer)
