"""What a source of networks is, what it is asked for, and what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from sparsemend.data.preprocessing import Preprocessing


@dataclass(frozen=True)
class Request:
    """A network that is asked for.

    Attributes
    ----------
    spec
        All that was written, such as ``"timm:resnet18"``.
    name
        What stands behind the prefix of the source.
    arguments
        Keywords of the constructor or factory that were given.
    state
        Tensors of the weights file by plain keys; None where the network is to have its own.
    progress
        Whether to show a bar where something is trained.
    """

    spec: str
    name: str
    arguments: Mapping[str, Any]
    state: Mapping[str, Tensor] | None = None
    progress: bool | None = None


@dataclass(frozen=True)
class Supply:
    """What a source gives.

    Attributes
    ----------
    model
        The network; the weights file, if there is one, is loaded into it afterwards.
    metadata
        What is known of its weights.
    preprocessing
        How it wants its images, where the source knows.
    tokenizer
        Texts → tensors, where the source has one.
    processor
        What its library prepares images with, where that is an object to be saved with the network.
    """

    model: nn.Module
    metadata: Mapping[str, str] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    tokenizer: Any = None
    processor: Any = None


@dataclass(frozen=True)
class Source:
    """A place where networks come from.

    Attributes
    ----------
    pattern
        How such networks are written, for help and errors.
    accepts
        What was written → the name within the source, or None where it is another source's.
    supply
        Gives the network.
    """

    pattern: str
    accepts: Callable[[str], str | None]
    supply: Callable[[Request], Supply]


def behind(prefix: str) -> Callable[[str], str | None]:
    """Accepts what begins with ``prefix:``."""
    return lambda spec: (
        spec.removeprefix(f"{prefix}:").strip() if spec.startswith(f"{prefix}:") else None
    )
