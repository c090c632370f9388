"""Fold a channelwise repair z' → g z' + h into the network: no run-time cost, same keys."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import Layer, stored_weight, weight_matrix


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
    modules: dict[str, Any] = dict(model.named_modules())
    weight = modules[layer.name].weight
    norm = modules.get(layer.norm) if layer.norm is not None else None
    added: list[str] = []
    with torch.no_grad():
        if scale is not None:
            matrix = weight_matrix(weight, layer)
            rows = scale.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
            scaled = matrix.to(rows.dtype) * rows.reshape(layer.groups, -1, 1)
            scaled.masked_fill_(matrix == 0, 0)  # a negative scale would make it -0
            weight.copy_(stored_weight(scaled, layer))
        folded: set[int] = set()  # tied layers may share their bias as well
        for path in (layer.name, *layer.aliases):
            module = modules[path]
            if module.bias is not None:
                if id(module.bias) not in folded:
                    bias = module.bias.to(shift.dtype)
                    module.bias.copy_((bias if scale is None else bias * scale) + shift)
                folded.add(id(module.bias))
            elif isinstance(norm, _BatchNorm):
                if norm.running_mean is not None:  # batch statistics cancel any shift
                    norm.running_mean.copy_(norm.running_mean.double() - shift)
            else:
                bias = nn.Parameter(shift.to(weight.dtype), requires_grad=weight.requires_grad)
                module.register_parameter("bias", bias)
                added.append(path)
    return added
