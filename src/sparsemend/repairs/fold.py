"""Fold a channelwise repair z' → g z' + h into the network: no run-time cost, same keys.

A shift goes into the layer's bias; without one, into the running mean of the BatchNorm that
follows (there, and not in its affine bias, a later recalibration cancels it exactly). A layer that
has neither is shifted only where new biases are asked for; else repairs fit it with h = 0.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import Layer, stored_weight, weight_matrix


def takes_shift(model: nn.Module, layer: Layer) -> bool:
    """Whether a shift of the layer's outputs has a place in the network as it is."""
    modules: dict[str, Any] = dict(model.named_modules())
    if layer.norm is not None and isinstance(modules[layer.norm], _BatchNorm):
        return True
    return all(modules[path].bias is not None for path in (layer.name, *layer.aliases))


def unshiftable(model: nn.Module, layers: Iterable[Layer]) -> tuple[str, ...]:
    """Names of the layers without a place for a shift."""
    return tuple(layer.name for layer in layers if not takes_shift(model, layer))


def fold(model: nn.Module, layer: Layer, scale: Tensor | None, shift: Tensor | None) -> list[str]:
    """Scale a layer's rows and shift its outputs, in place.

    The scale goes into the weights. The shift goes where the module's docstring says, else into
    a new bias parameter.

    Parameters
    ----------
    model
        The pruned network, changed in place.
    layer
        The layer to repair.
    scale
        g, [C]; None for a shift alone.
    shift
        h, [C], for outputs that contain the present bias; None for none.

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
            # Plus zero: a negative scale would turn pruned weights into -0.
            weight.copy_(stored_weight(scaled, layer) + 0.0)
        folded: set[int] = set()  # tied layers may share their bias as well
        for path in (layer.name, *layer.aliases):
            module = modules[path]
            if module.bias is not None:
                if id(module.bias) not in folded:
                    _fold_bias(module.bias, scale, shift)
                folded.add(id(module.bias))
            elif shift is None:
                continue
            elif isinstance(norm, _BatchNorm):
                if norm.running_mean is not None:  # batch statistics cancel any shift
                    norm.running_mean.copy_(norm.running_mean.double() - shift)
            else:
                bias = nn.Parameter(shift.to(weight.dtype), requires_grad=weight.requires_grad)
                module.register_parameter("bias", bias)
                added.append(path)
    return added


def _fold_bias(bias: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
    if shift is None:
        if scale is not None:
            bias.copy_(bias.to(scale.dtype) * scale)
        return
    wide = bias.to(shift.dtype)
    bias.copy_((wide if scale is None else wide * scale) + shift)
