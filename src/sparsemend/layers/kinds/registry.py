"""The kinds of layers that the library prunes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.layers.kinds.call import Call
from sparsemend.layers.kinds.convolution import Convolution
from sparsemend.layers.kinds.kind import LayerKind
from sparsemend.layers.kinds.linear import Linear
from sparsemend.layers.kinds.transposed_convolution import TransposedConvolution

# A module belongs to the first kind that covers its type or a base of it.
KINDS: dict[str, LayerKind] = {
    "convolution": Convolution(),
    "transposed convolution": TransposedConvolution(),
    "linear": Linear(),
}


# What a layer multiplies in.
_METHODS = ("forward", "_conv_forward")


def is_layer(module: object) -> bool:
    """Whether a module is of one of the kinds."""
    return any(kind.covers(module) for kind in KINDS.values())


def plain_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Layers of a network that run as PyTorch defines them, by name.

    A subclass may do something else with its weight than the module that it extends, and so may a
    function in the place of a forward pass. Only inputs can show what.
    """
    found = {}
    for name, module in model.named_modules():
        base = next((b for k in KINDS.values() for b in k.modules if isinstance(module, b)), None)
        own = any(
            getattr(type(module), method, None) is not getattr(base, method, None)
            for method in _METHODS
        )
        if base is not None and not own and "forward" not in vars(module):
            found[name] = module
    return found


def kind_of(module: nn.Module) -> LayerKind:
    """The kind of a module.

    Raises
    ------
    SparsemendError
        If it is of none.
    """
    for kind in KINDS.values():
        if kind.covers(module):
            return kind
    raise SparsemendError("no kind of layer covers this module", type(module).__name__, labels())


def kind_named(name: str) -> LayerKind:
    """The kind of the layers of a public name, such as ``"Conv2d"``.

    Raises
    ------
    SparsemendError
        If it is of none.
    """
    for kind in KINDS.values():
        if name in kind.modules.values():
            return kind
    raise SparsemendError("no kind of layer has this name", name, labels())


def labels() -> str:
    """The layers of all kinds, as an error message lists them."""
    *others, last = (kind.label for kind in KINDS.values())
    return f"{', '.join(others)} or {last}" if others else last


def read_call(operation: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call | None:
    """An operation as a call of a layer of some kind; None if it is none."""
    for kind in KINDS.values():
        call = kind.read(operation, args, kwargs)
        if call is not None:
            weight = call.weight
            # Nothing to prune, or numbers that have no order.
            return call if weight.numel() and not weight.is_complex() else None
    return None
