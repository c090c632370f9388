"""Fold a channelwise repair z' → g z' + h into the network: no run-time cost, same keys.

A shift goes into the layer's bias; without one, into the running mean of the BatchNorm that
follows (there, and not in its affine bias, a later recalibration cancels it exactly). A layer that
has neither is shifted only where new biases are asked for; else repairs fit it with h = 0.
"""

from __future__ import annotations

from collections.abc import Iterable

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


def takes_shift(model: nn.Module, layer: Layer, *, new_biases: bool = False) -> bool:
    """Whether a shift of the layer's outputs has a place in the network, or may get one."""
    if layer.norm is not None and isinstance(model.get_submodule(layer.norm), _BatchNorm):
        return True
    modules = layer_modules(model, layer)
    if len(modules) == 1 and layer_biases(model, layer):  # perhaps one that it adds on its own
        return True
    if not modules:
        return bool(layer_biases(model, layer))
    # Tied layers are shifted together or not at all.
    added = new_biases and layer.takes_bias
    return added or all(module.bias is not None for _, module in modules)


def unshiftable(
    model: nn.Module, layers: Iterable[Layer], *, new_biases: bool = False
) -> tuple[str, ...]:
    """Names of the layers without a place for a shift."""
    return tuple(x.name for x in layers if not takes_shift(model, x, new_biases=new_biases))


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
    weight = layer_weight(model, layer)
    norm = None if layer.norm is None else model.get_submodule(layer.norm)
    if scale is not None:
        rows = scale.to(torch.float64 if weight.dtype == torch.float64 else torch.float32)
        matrix = weight_matrix(weight, layer).to(rows.dtype)
        # Plus zero: a negative scale would turn pruned weights into -0.
        set_weight(model, layer, matrix * rows.reshape(layer.groups, -1, 1) + 0.0)
    added: list[str] = []
    with torch.no_grad():
        biases = layer_biases(model, layer)
        for bias in biases:
            _fold_bias(bias, scale, shift)
        modules = layer_modules(model, layer)
        missing = [(path, module) for path, module in modules if module.bias is None]
        if shift is None or (biases and (len(modules) < 2 or not missing)):
            return added
        if isinstance(norm, _BatchNorm):
            if norm.running_mean is not None:  # batch statistics cancel any shift
                norm.running_mean.copy_(norm.running_mean.double() - shift)
            return added
        for path, module in missing:
            new = nn.Parameter(shift.to(weight), requires_grad=_learns(module))
            module.register_parameter("bias", new)
            added.append(path)
    return added


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters(recurse=False))


def _fold_bias(bias: Tensor, scale: Tensor | None, shift: Tensor | None) -> None:
    if shift is None:
        if scale is not None:
            bias.copy_(bias.to(scale.dtype) * scale)
        return
    wide = bias.to(shift.dtype)
    bias.copy_((wide if scale is None else wide * scale) + shift)
