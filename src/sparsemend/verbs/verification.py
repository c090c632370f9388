"""Check what a compression or repair hands back: its zeros and its parameters."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from sparsemend.errors import SparsemendError
from sparsemend.layers import LayerSet
from sparsemend.masks.verification import verify_masks

Shapes = Mapping[str, tuple[int, ...]]


def verify_result(
    network: nn.Module,
    parameters: Shapes,
    masks: Mapping[str, Tensor],
    counts: Mapping[str, int],
    layers: LayerSet,
    added_biases: Collection[str] = (),
) -> None:
    """Check that a network is as sparse as said and has the parameters that it had.

    Parameters
    ----------
    network
        The result.
    parameters
        Those that it should have, from :func:`shapes_of`.
    masks, counts, layers
        As in :func:`sparsemend.masks.verification.verify_masks`.
    added_biases
        Module paths that have a bias besides.

    Raises
    ------
    SparsemendError
        Naming the layer or parameter that is not as it should be.
    """
    verify_masks(network, masks, counts, layers)
    found, wanted = shapes_of(network), dict(parameters)
    modules: dict[str, Any] = dict(network.named_modules())
    for path in added_biases:
        name = f"{path}.bias" if path else "bias"
        wanted[name] = tuple(modules[path].bias.shape)
    for name in dict.fromkeys((*wanted, *found)):
        if found.get(name) != wanted.get(name):
            raise SparsemendError(
                f"verification of the result failed: parameter {name!r} is not as it was",
                found.get(name, "no such parameter"),
                str(wanted.get(name, "no such parameter")),
                "the repair that was used has a fault; use another and report this",
            )


def shapes_of(model: nn.Module) -> Shapes:
    """Name → shape of every parameter, of shared ones under each of their names."""
    return {name: tuple(p.shape) for name, p in model.named_parameters(remove_duplicate=False)}
