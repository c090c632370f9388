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

from sparsemend.layers import LayerSet, Node, weight_matrix

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
        self._names = {path: x for x in layers for path in (x.name, *x.aliases)}
        self._energy: dict[int, Tensor] = {}

    def run(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        nodes = self._layers.graph.nodes
        tails = {layer.norm or layer.name: layer.name for layer in self._layers}
        for node in reversed(nodes):
            energy = self._energy.pop(node.index, None)
            if energy is None or len(energy) != _channels(node):
                energy = torch.ones(_channels(node), dtype=torch.float64)
            if node.kind == "module" and node.name in tails:
                found[tails[node.name]] = energy + found.get(tails[node.name], 0)
            passed = self._through(node, energy)
            for source in set(node.inputs):
                self._hand_on(nodes[source], node, passed)
        return found

    def _through(self, node: Node, energy: Tensor) -> Tensor:
        """Energy at the input of a node, per input channel."""
        if node.kind == "function":
            return energy * (_RECTIFIED_SHARE if node.name.startswith("relu") else 1.0)
        module: Any = self._model.get_submodule(node.name)
        if node.name in self._names:
            layer = self._names[node.name]
            matrix = weight_matrix(module.weight.detach(), layer).double().cpu()
            inputs = layer.fan_in // math.prod(layer.kernel_size)
            square = matrix.square().unflatten(2, (inputs, -1)).sum(dim=3)
            rows = energy.reshape(layer.groups, -1, 1)
            passed: Tensor = (square * rows).sum(dim=1).flatten()
            return passed
        if isinstance(module, _BatchNorm) and module.running_var is not None:
            slope = (module.running_var.double() + module.eps).reciprocal()
            if module.weight is not None:
                slope = slope * module.weight.detach().double().square()
            return energy * slope.cpu()
        return energy

    def _hand_on(self, source: Node, node: Node, energy: Tensor) -> None:
        channels = _channels(source)
        if len(energy) != channels:
            if not channels or len(energy) % channels:
                return
            energy = energy.unflatten(0, (channels, -1)).sum(dim=1)  # a flattened grid
        if len(source.shape) > 2 and len(node.shape) >= 2:
            energy = energy * (math.prod(node.shape[2:]) / max(1, math.prod(source.shape[2:])))
        before = self._energy.get(source.index)
        self._energy[source.index] = energy if before is None else before + energy


def _channels(node: Node) -> int:
    return node.shape[1] if len(node.shape) > 1 else 0
