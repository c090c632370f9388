"""One operation that multiplies with a weight, taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Call:
    """An operation as a kind of layer reads it.

    Attributes
    ----------
    geometry
        A module without parameters that has the attributes of a layer that calls like this, such
        as ``kernel_size`` and ``stride``: all that is needed to lay inputs and outputs out.
    x
        The input.
    weight
        The operand, in the shape in which the kind stores a weight.
    bias
        What is added to every channel, [C], or None.
    takes_bias
        Whether the operation has an argument for one. Where it has none, a module adds its bias
        in an operation of its own.
    """

    geometry: Any
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    takes_bias: bool = True


def bare(like: type[nn.Module], **attributes: Any) -> Any:
    """A module of this type without parameters and without a call of its constructor."""
    module = like.__new__(like)
    nn.Module.__init__(module)
    module.__dict__.update(attributes)
    return module


def bound(
    names: Sequence[str], args: Sequence[Any], kwargs: Mapping[str, Any], **defaults: Any
) -> dict[str, Any]:
    """Arguments of an operation by name; what is not given has its default."""
    return {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
