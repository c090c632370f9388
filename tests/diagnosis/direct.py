"""The direct way: prune a layer, run it on its dense inputs, repair the outputs, measure."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from sparsemend.layers import LayerSet, channel_last

# Variances are matched up to this share of the dense one, for an emptied channel has none.
EPS = 1e-10
# Least share of the mean square at which a variance in float64 is more than rounding.
ROUNDING = 1e-24
TINIEST = np.finfo(np.float64).tiny


def layer_inputs(model: nn.Module, layers: LayerSet, x: Tensor) -> dict[str, Tensor]:
    """Layer name → its input in the dense network."""
    inputs: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    handles = [
        modules[layer.name].register_forward_pre_hook(
            lambda _, args, name=layer.name: inputs.update({name: args[0]})
        )
        for layer in layers
    ]
    with torch.no_grad():
        model.eval()(x)
    for handle in handles:
        handle.remove()
    return inputs


def outputs(module: nn.Module, weight: np.ndarray, x: Tensor) -> np.ndarray:
    """The module's outputs with another weight, [positions, C], in float64."""
    run = copy.deepcopy(module).double()
    with torch.no_grad():
        run.weight.copy_(torch.from_numpy(weight))
        return channel_last(run, run(x.double())).numpy()


def largest(weight: np.ndarray, counts: Sequence[int]) -> Iterator[np.ndarray]:
    """The weight with all but its ``count`` largest entries zero, ties by index."""
    flat = weight.ravel()
    order = sorted(range(flat.size), key=lambda i: (-abs(flat[i]), i))
    for count in counts:
        pruned = np.zeros_like(flat)
        pruned[order[:count]] = flat[order[:count]]
        yield pruned.reshape(weight.shape)


def count_at(density: float, size: int) -> int:
    return max(1, int(np.floor(density * size + 0.5)))


def repaired(name: str, z: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """The pruned outputs with the operator's scale and shift applied."""
    if name == "none":
        return pruned
    v, w = z.var(axis=0), pruned.var(axis=0)
    w = np.where(w > ROUNDING * np.square(pruned).mean(axis=0), w, 0)
    gamma = np.sqrt(v / np.maximum(w + EPS * v, TINIEST))
    q = ((z - z.mean(axis=0)) * (pruned - pruned.mean(axis=0))).mean(axis=0)
    scale = {
        "mean": lambda: np.ones_like(v),
        "variance": lambda: gamma,
        "layerwise": lambda: np.sqrt(v.mean() / max(w.mean() + EPS * v.mean(), TINIEST)),
        "shrinkage": lambda: 1 + w / np.where(w > 0, w + np.median(w), 1) * (gamma - 1),
        "affine": lambda: q / np.where(w > 0, w, 1),
    }[name]()
    return scale * pruned + z.mean(axis=0) - scale * pruned.mean(axis=0)


def damage(name: str, z: np.ndarray, pruned: np.ndarray) -> np.ndarray:
    """D per channel after the repair."""
    return ((repaired(name, z, pruned) - z) ** 2).mean(axis=0)
