"""Reading and writing what a layer has in a model: its weight, and what is added behind it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.layers.kinds import kind_named
from sparsemend.layers.layer import Layer


def layer_weight(model: nn.Module, layer: Layer) -> Tensor:
    """A layer's weight as its kind stores it: detached, in the model's own memory."""
    if layer.weight is not None:
        return layer.weight.of(model)
    return layer_parameter(model, layer).detach()


def set_weight(model: nn.Module, layer: Layer, matrix: Tensor) -> None:
    """Write a weight matrix [groups, rows per group, fan-in] into the model, in place."""
    with torch.no_grad():
        layer_weight(model, layer).copy_(kind_named(layer.kind).stored_weight(matrix, layer))


def layer_parameter(model: nn.Module, layer: Layer) -> nn.Parameter:
    """The parameter that holds a layer's weight, perhaps among others."""
    if layer.weight is not None:
        return model.get_parameter(layer.weight.parameter)
    weight: nn.Parameter = model.get_submodule(layer.name).weight  # type: ignore[assignment]
    return weight


def layer_gradient(model: nn.Module, layer: Layer) -> Tensor | None:
    """The gradient of a layer's weight, in the weight's shape; None where there is none."""
    parameter = layer_parameter(model, layer)
    if parameter.grad is None or layer.weight is None:
        return parameter.grad
    # The gradient may be laid out in another way than the parameter.
    shape, stride, found = parameter.shape, parameter.stride(), parameter.grad
    like = torch.empty_strided(shape, stride, dtype=found.dtype, device=found.device)
    gradient = like.copy_(found) if like.numel() else found
    view = layer.weight
    return gradient.as_strided(view.shape, view.stride, view.offset)


def layer_biases(model: nn.Module, layer: Layer) -> list[Tensor]:
    """What is added to the layer's outputs where it runs, each once: detached, [C]."""
    if layer.biases:
        return [bias.of(model) for bias in layer.biases]
    biases = (module.bias for _, module in layer_modules(model, layer))
    present = {id(bias): bias.detach() for bias in biases if bias is not None}
    return list(present.values())


def present_bias(model: nn.Module, layer: Layer, like: Tensor) -> Tensor:
    """The bias that the layer has now, [C], in the type of ``like``; 0 where it has none."""
    biases = layer_biases(model, layer)
    return biases[0].to(like) if biases else like.new_zeros(layer.rows)


def layer_modules(model: nn.Module, layer: Layer) -> list[tuple[str, Any]]:
    """Modules that hold the layer's whole weight in ``weight`` and may hold a ``bias``."""
    if not layer.is_module:
        return []
    found = []
    for path in (layer.name, *layer.aliases):
        try:
            module = model.get_submodule(path)
        except AttributeError:  # no such module
            continue
        if hasattr(module, "bias"):
            found.append((path, module))
    return found


def run_layer(model: nn.Module, layer: Layer, geometry: Any, x: Tensor) -> Tensor:
    """The layer's output for an input, with the model's present weight and bias."""
    biases = layer_biases(model, layer)
    bias = biases[getattr(geometry, "which_bias", 0)] if biases else None
    return kind_named(layer.kind).apply(geometry, x, layer_weight(model, layer), bias)
