"""How much an error of a channel matters at the network's output, from weights alone.

White errors are sent backwards through the traced graph: a layer hands an error's energy on by
its squared weights, a normalisation by its squared slope, a ReLU lets half of it through, a sum
passes it to both operands. Only the ratios within a layer are used.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import NORMALISATIONS, LayerSet, Node, layer_weight, weight_matrix

_RECTIFIED_SHARE = 0.5


def channel_importance(model: nn.Module, layers: LayerSet) -> dict[str, Tensor]:
    """Layer name → energy of the output error per unit error of each (normalised) channel, [C].

    Parameters
    ----------
    model
        The network whose weights are read.
    layers
        Its layers, with the traced graph.
    """
    return _Backward(model, layers).run()


class _Backward:
    def __init__(self, model: nn.Module, layers: LayerSet) -> None:
        self._model, self._layers = model, layers
        self._names = {layer.name: layer for layer in layers}
        self._modules = dict(model.named_modules())
        self._energy: dict[int, Tensor] = {}

    def run(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        nodes = self._layers.graph.nodes
        tails = {layer.norm or layer.name: layer for layer in self._layers}
        for node in reversed(nodes):
            layer = None
            if node.kind == "module":
                layer = tails.get(node.name, self._names.get(node.name))
            widths = _widths(node) if layer is None else (layer.rows,)
            energy = self._energy.pop(node.index, None)
            if energy is None or len(energy) not in widths:
                energy = torch.ones(widths[0], dtype=torch.float64)
            if layer is not None and node.name in tails:
                found[layer.name] = energy + found.get(layer.name, 0)
            passed = self._through(node, energy)
            if passed is None:
                continue
            for source in set(node.inputs):
                self._hand_on(nodes[source], passed, _positions(node, len(energy)))
        return found

    def _through(self, node: Node, energy: Tensor) -> Tensor | None:
        """Energy at the input of a node, per input channel; None where that is not known."""
        if node.kind == "function":
            return energy * (_RECTIFIED_SHARE if node.name.startswith("relu") else 1.0)
        if node.name in self._names:
            layer = self._names[node.name]
            matrix = weight_matrix(layer_weight(self._model, layer), layer).double()
            inputs = layer.input_channels // layer.groups
            square = matrix.square().unflatten(2, (inputs, -1)).sum(dim=3)
            rows = energy.to(square.device).reshape(layer.groups, -1, 1)
            passed: Tensor = (square * rows).sum(dim=1).flatten().cpu()
            return passed
        module: Any = self._modules.get(node.name)
        if not isinstance(module, NORMALISATIONS):  # a weight that is not pruned
            return None
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            slope = (module.running_var.double() + module.eps).reciprocal()
            if module.weight is not None:
                slope = slope * module.weight.detach().double().square()
            return energy * slope.cpu()
        return energy

    def _hand_on(self, source: Node, energy: Tensor, positions: float) -> None:
        """Add energy to a source; ``positions`` are those of the node that it comes from."""
        widths = _widths(source)
        if len(energy) not in widths:
            if not widths[0] or len(energy) % widths[0]:
                return
            energy = energy.unflatten(0, (widths[0], -1)).sum(dim=1)  # a flattened grid
        energy = energy * (positions / _positions(source, len(energy)))
        before = self._energy.get(source.index)
        if before is None or len(before) == len(energy):
            self._energy[source.index] = energy if before is None else before + energy


def _widths(node: Node) -> tuple[int, ...]:
    """How many channels an output may have: they come second, or last behind a linear layer."""
    return (node.shape[1], node.shape[-1]) if len(node.shape) > 1 else (0,)


def _positions(node: Node, channels: int) -> float:
    return max(1, math.prod(node.shape[1:])) / max(1, channels)
