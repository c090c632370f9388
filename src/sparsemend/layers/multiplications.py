"""How often every layer multiplies: what a forward pass costs, and what zeros save of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from sparsemend.execution.batches import batch_size, call, evaluation_mode
from sparsemend.layers.calls import LayerCalls
from sparsemend.layers.kinds import Call
from sparsemend.layers.layer import Layer


def count_multiplications(model: nn.Module, layers: Iterable[Layer], batch: Any) -> dict[str, int]:
    """Layer name → multiplications of its weights for one input, by one forward pass.

    Products of two tensors that both depend on the input, such as Q·Kᵀ and A·V of attention, have
    no weights: no layer counts them, and pruning leaves them as they are.

    Parameters
    ----------
    model
        The dense network; unchanged.
    layers
        Its layers.
    batch
        Inputs, all alike.
    """
    layers = tuple(layers)
    found = dict.fromkeys((layer.name for layer in layers), 0)

    def count(layer: Layer, _: Call, output: Tensor) -> Tensor:
        found[layer.name] += output.numel() * layer.fan_in
        return output

    with evaluation_mode(model), LayerCalls(model, layers, after=count):
        call(model, batch)
    return {name: count // batch_size(batch) for name, count in found.items()}


def kept_multiplications(
    dense: Mapping[str, int], counts: Mapping[str, int], sizes: Mapping[str, int]
) -> float:
    """Multiplications that are left where zeros are skipped.

    Parameters
    ----------
    dense
        Layer name → multiplications of the dense network.
    counts, sizes
        Layer name → kept weights, and all of them; layers without stay dense.
    """
    return sum(
        count * counts[name] / sizes[name] if name in counts else count
        for name, count in dense.items()
    )
