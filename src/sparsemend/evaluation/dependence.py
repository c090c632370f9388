"""Whether a sparse network's output still depends on its input, and where that ends."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsemend.evaluation.outputs import floating_outputs
from sparsemend.execution.batches import Batch, call, cut, evaluation_mode
from sparsemend.layers import Call, Layer, LayerCalls, LayerSet

_INPUTS = 16
# Of the dense network's variance over inputs; less is no signal.
_NOTHING = 1e-6


def signal_ends(
    dense: nn.Module, sparse: nn.Module, layers: LayerSet, batch: Batch
) -> tuple[str, ...]:
    """Layers behind which a sparse network has nothing left of its input.

    Looked at only where the network's output does not depend on the input any more: where a
    branch alone is dead, the signal goes on beside it.

    Parameters
    ----------
    dense, sparse
        The network before and after; run on some of the inputs.
    layers
        Those that were pruned.
    batch
        Inputs, of which two at least must differ.

    Returns
    -------
    tuple of str
        In execution order the layers whose inputs still vary but whose outputs do not; empty where
        the output depends on the input.
    """
    inputs = cut(batch, 0, _INPUTS)
    before, after = _variances(dense, layers, inputs), _variances(sparse, layers, inputs)
    if not _is_lost(before[""][1], after[""][1]):
        return ()
    ended = [
        name
        for name in layers.names
        if name in before and name in after and _is_lost(before[name][1], after[name][1])
    ]
    first = [name for name in ended if not _is_lost(before[name][0], after[name][0])]
    return tuple(first or ended[:1])


def _is_lost(before: float, after: float) -> bool:
    return before > 0 and after <= _NOTHING * before


def _variances(
    model: nn.Module, layers: LayerSet, inputs: Batch
) -> Mapping[str, tuple[float, float]]:
    """Layer → variance of its inputs and of its outputs; the network has the empty name."""
    found: dict[str, tuple[float, float]] = {}

    def note(layer: Layer, called: Call, output: Tensor) -> Tensor:
        before = found.get(layer.name, (0.0, 0.0))
        found[layer.name] = (before[0] + _variance(called.x), before[1] + _variance(output))
        return output

    with evaluation_mode(model), LayerCalls(model, layers, after=note):
        output = call(model, inputs)
    total = sum(_variance(part.tensor) for part in floating_outputs(output))
    return found | {"": (0.0, total)}


def _variance(x: Tensor) -> float:
    """Between inputs, summed over all else; 0 for fewer than two."""
    if len(x) < 2 or x.is_complex():
        return 0.0
    found = torch.var(x.detach().double(), dim=0, correction=0).sum()
    return float(found) if found.isfinite() else float("inf")
