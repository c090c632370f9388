"""What of a sparse network is trained: kept weights, biases, and what scales channels."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from sparsemend.layers import Layer, set_weight, weight_matrix


class Trained:
    """The parameters of a network that are trained, and where in them.

    These are the kept weights of the pruned layers, their biases, and the vectors of modules
    without matrices, such as the affine parameters of normalisations. Everything else stays as it
    is bit for bit: other layers, embeddings, running statistics, and zeros, which stay +0.

    Parameters
    ----------
    network
        The network; afterwards only what is trained asks for gradients.
    layers
        The pruned layers.
    masks
        Layer name → boolean tensor of the stored weight's shape, True where kept.
    """

    def __init__(
        self, network: nn.Module, layers: Iterable[Layer], masks: Mapping[str, Tensor]
    ) -> None:
        network.requires_grad_(False)
        kept = _kept(network, layers, masks)
        names = _vectors(network, set(kept))
        self.parameters = {
            name: parameter
            for name, parameter in network.named_parameters()
            if name in kept or name in names
        }
        # Where a parameter may change, and what it is elsewhere.
        self._partly = {
            name: (mask, self.parameters[name].detach().clone())
            for name, mask in kept.items()
            if not mask.all()
        }
        for parameter in self.parameters.values():
            parameter.requires_grad_()

    @property
    def count(self) -> int:
        """Number of values that are trained."""
        whole = sum(p.numel() for name, p in self.parameters.items() if name not in self._partly)
        return whole + sum(int(mask.sum()) for mask, _ in self._partly.values())

    def mask_gradients(self) -> None:
        """Leave no gradient where nothing may change."""
        for name, (mask, _) in self._partly.items():
            gradient = self.parameters[name].grad
            if gradient is not None:
                gradient.mul_(mask)

    def settle(self) -> None:
        """Put back exactly what may not change."""
        with torch.no_grad():
            for name, (mask, fixed) in self._partly.items():
                parameter = self.parameters[name]
                parameter.copy_(torch.where(mask, parameter, fixed))

    def values(self) -> dict[str, Tensor]:
        """A copy of all trained parameters by name."""
        return {name: p.detach().clone() for name, p in self.parameters.items()}


def _kept(
    network: nn.Module, layers: Iterable[Layer], masks: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Parameter name → where it holds kept weights; parameters may hold several layers."""
    marks = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in marks.parameters():
            parameter.zero_()
        for layer in layers:
            matrix = weight_matrix(masks[layer.name], layer)
            set_weight(marks, layer, matrix.to(next(marks.parameters()).dtype))
    return {
        name: parameter.detach() != 0
        for name, parameter in marks.named_parameters()
        if parameter.detach().any()
    }


def _vectors(network: nn.Module, matrices: set[str]) -> set[str]:
    """Names of vectors beside trained matrices, and of those in modules without matrices."""
    found = set()
    for path, module in network.named_modules():
        own = {
            f"{path}.{name}" if path else name: parameter
            for name, parameter in module.named_parameters(recurse=False)
        }
        others = [name for name, parameter in own.items() if parameter.dim() > 1]
        if others and matrices.isdisjoint(others):
            continue
        found |= {n for n, p in own.items() if p.dim() < 2 and p.is_floating_point()}
    return found
