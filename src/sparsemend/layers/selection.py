"""Choosing layers by pattern, or by the part they play in the network."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase

from sparsemend.errors import SparsemendError
from sparsemend.layers.discovery import LayerSet
from sparsemend.layers.joins import surroundings


def _projection(layers: LayerSet) -> list[str]:
    """1×1 convolutions on a shortcut."""
    joined = (around.shortcut for around in surroundings(layers).values())
    found = {shortcut.projection for shortcut in joined if shortcut is not None}
    return [x.name for x in layers if x.name in found and set(x.kernel_size) == {1}]


def _depthwise(layers: LayerSet) -> list[str]:
    """Convolutions whose groups each see one channel."""
    return [x.name for x in layers if x.groups > 1 and x.input_channels == x.groups]


CLASSES: dict[str, Callable[[LayerSet], list[str]]] = {
    "projection": _projection,
    "first": lambda layers: [layers[0].name],
    "last": lambda layers: [layers[-1].name],
    "depthwise": _depthwise,
}


def select_layers(layers: LayerSet, pattern: str) -> tuple[str, ...]:
    """Names of the layers that are meant, in execution order.

    Parameters
    ----------
    layers
        From :func:`discover` with a batch, which the class ``projection`` needs.
    pattern
        ``projection`` (1×1 convolutions on shortcuts), ``first``, ``last``, ``depthwise``, or a
        pattern of layer names with ``*``, ``?`` and ``[…]``.

    Raises
    ------
    SparsemendError
        If there is no such layer.
    """
    if pattern in CLASSES:
        found = CLASSES[pattern](layers)
    else:
        found = [name for name in layers.names if fnmatchcase(name, pattern)]
    if not found:
        raise SparsemendError(
            "no layer of the network is meant by this pattern",
            pattern,
            f"{', '.join(CLASSES)}, or a pattern of {', '.join(layers.names)}",
            "projections are found with inputs: pass layers=discover(model, batch)"
            if pattern == "projection" and not layers.graph.nodes
            else "",
        )
    return tuple(found)
