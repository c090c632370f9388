"""Check that a network is as sparse as its masks and counts say, before anything is said of it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sparsemend.errors import SparsemendError
from sparsemend.layers import LayerSet, layer_weight, weight_matrix


def verify_masks(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    counts: Mapping[str, int],
    layers: LayerSet,
) -> None:
    """Check every layer that has a count.

    Parameters
    ----------
    model
        The pruned network.
    masks
        Layer name → boolean tensor of the stored weight's shape, True where kept.
    counts
        Layer name → number of weights to keep.
    layers
        Of the network.

    Raises
    ------
    SparsemendError
        Naming the layer: if it has no mask of its weight's shape, the mask does not keep that
        many weights, does not have the layer's pattern or the channels of the layers it is coupled
        with, or a weight outside it is anything but +0.
    """
    together: dict[tuple[tuple[str, ...], int], Tensor] = {}
    for name, count in counts.items():
        layer = layers[name]
        weight, mask = layer_weight(model, layer), masks.get(name)
        if mask is None or mask.shape != weight.shape:
            shape = None if mask is None else tuple(mask.shape)
            raise _wrong(name, "has no mask of its weight", shape, tuple(weight.shape))
        kept = int(mask.sum())
        if kept != count:
            raise _wrong(name, "has a mask of another number of weights", kept, count)
        if not layer.structure.holds(weight_matrix(mask, layer)):
            raise _wrong(name, "has a mask without its pattern", None, layer.pattern.name)
        if coupled := layer.structure.coupled:
            channels = weight_matrix(mask, layer).any(dim=2).flatten().cpu()
            same = together.setdefault((coupled, int(channels.sum())), channels)
            if not torch.equal(channels, same):
                raise _wrong(name, "keeps other channels than it has to", None, ", ".join(coupled))
        pruned = weight[~mask]
        if left := int(pruned.count_nonzero()):
            raise _wrong(name, "has weights outside its mask that are not zero", left, 0)
        if negative := int(pruned.signbit().sum()):
            raise _wrong(name, "has pruned weights that are -0", negative, "+0 only")


def _wrong(name: str, problem: str, value: object, allowed: object) -> SparsemendError:
    return SparsemendError(
        f"verification of the result failed: layer {name!r} {problem}",
        value,
        str(allowed),
        "the repair or mask rule that was used has a fault; use another and report this",
    )
