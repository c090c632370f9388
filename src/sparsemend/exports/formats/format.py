"""What a format is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sparsemend.execution.batches import Batch


@dataclass(frozen=True)
class Request:
    """What is to be exported, and where.

    Attributes
    ----------
    model
        The sparse network, in evaluation mode.
    path
        The empty file or folder to fill; it gets its place when it has been checked.
    example
        A batch of inputs; None where none was given.
    dtype
        Type of stored values, for formats that have a choice.
    metadata
        Facts to keep with the network, where the format can.
    """

    model: nn.Module
    path: Path
    example: Batch | None
    dtype: str
    metadata: dict[str, str]


@dataclass(frozen=True)
class Format:
    """A format of exported networks.

    Attributes
    ----------
    name
        In Python and on the command line.
    write
        Fills the file or folder.
    read
        Path → a callable that runs what was written, for the check against the network; None
        where nothing that is installed can.
    endings
        Of file names; empty for a folder.
    needs_example
        Whether it cannot do without an example.
    """

    name: str
    write: Callable[[Request], None]
    read: Callable[[Request], Callable[..., Any] | None]
    endings: tuple[str, ...]
    needs_example: bool = True
