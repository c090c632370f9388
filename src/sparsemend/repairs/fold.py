"""Fold a channelwise repair z' → g z' + h into the network: no run-time cost, same keys."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import (
    Layer,
    layer_biases,
    layer_modules,
    layer_weight,
    set_weight,
    weight_matrix,
)


def fold(model: nn.Module, layer: Layer, scale: Tensor | None, shift: Tensor) -> list[str]:
    """Scale a layer's rows and shift its outputs, in place.

    The scale goes into the weights. The shift goes into the layer's bias; without one, into
    the running mean of the BatchNorm that follows (there, and not in its affine bias, a later
    recalibration cancels it exactly); without either, into a new bias parameter.

    Parameters
    ----------
    model
        The pruned network, changed in place.
    layer
        The layer to repair.
    scale
        g, [C]; None for a shift alone.
    shift
        h, [C], for outputs that contain the present bias.

    Returns
    -------
    list of str
        Module paths that got a new bias parameter.
    """
    weight = layer_weight(model, layer)
    norm = None if layer.norm is None else model.get_submodule(layer.norm)
    if scale is not None:
        rows = scale.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
        matrix = weight_matrix(weight, layer).to(rows.dtype)
        set_weight(model, layer, matrix * rows.reshape(layer.groups, -1, 1))
    added: list[str] = []
    with torch.no_grad():
        biases = layer_biases(model, layer)
        for bias in biases:
            present = bias.to(shift.dtype)
            bias.copy_((present if scale is None else present * scale) + shift)
        if biases:
            return added
        if isinstance(norm, _BatchNorm):
            if norm.running_mean is not None:  # batch statistics cancel any shift
                norm.running_mean.copy_(norm.running_mean.double() - shift)
            return added
        for path, module in layer_modules(model, layer):
            new = nn.Parameter(shift.to(weight.dtype), requires_grad=_learns(module))
            module.register_parameter("bias", new)
            added.append(path)
    return added


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))
