"""Channels that have the same value whatever the inputs are, and at every position."""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.graphs.graph import Node
from sparsemend.graphs.operations import (
    ACTIVATIONS,
    Activation,
    Add,
    Affine,
    AveragePool,
    Convolution,
    GlobalAverage,
    MaxPool,
)

# What makes output channel k of input channel k alone.
CHANNELWISE = Activation | Add | Affine | MaxPool | AveragePool | GlobalAverage


def through(node: Node, inputs: list[Tensor]) -> Tensor:
    """A constant behind a node that passes channels on."""
    operation, x = node.operation, inputs[0]
    if isinstance(operation, Activation):
        return ACTIVATIONS[operation.function](x)
    if isinstance(operation, Add):
        return x + inputs[1]
    if isinstance(operation, Affine):
        return x * operation.scale + operation.shift
    if isinstance(operation, AveragePool):
        counted = operation.count_padding and operation.padding != (0, 0)
        return torch.where(x == 0, x, torch.nan) if counted else x
    if isinstance(operation, Convolution):
        kernel = operation.weight.flatten(1)
        inside = operation.bias + kernel.sum(1) * x
        if operation.padding != (0, 0):
            inside = torch.where(x == 0, operation.bias, torch.nan)
        return torch.where((kernel == 0).all(1), operation.bias, inside)
    return x
