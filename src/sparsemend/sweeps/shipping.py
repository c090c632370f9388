"""Sending networks and their inputs to other processes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cloudpickle
import torch

from sparsemend.errors import SparsemendError
from sparsemend.imports import importable
from sparsemend.sweeps.bench import Bench
from sparsemend.sweeps.inputs import Network


def pack(networks: Sequence[Network]) -> bytes:
    """Everything that computes the cells of some networks; functions go by value.

    Raises
    ------
    SparsemendError
        If something of it cannot be sent, such as an open file.
    """
    try:
        packed: bytes = cloudpickle.dumps(list(networks))
    except Exception as error:  # pickling runs code of the user's classes
        raise SparsemendError(
            f"the networks or their inputs cannot be sent to other processes "
            f"({type(error).__name__}: {error})",
            fix="use one process, or a model and functions without open files and threads",
        ) from error
    return packed


def unpack(packed: bytes) -> Bench:
    """A bench in this process, which then computes with one thread, as all that are sent do.

    Raises
    ------
    SparsemendError
        If something that was sent does not exist here.
    """
    torch.set_num_threads(1)
    try:
        with importable(Path.cwd()):
            return Bench(cloudpickle.loads(packed))
    except Exception as error:  # unpickling runs code of the user's classes
        raise SparsemendError(
            f"the networks or their inputs cannot be read in another process "
            f"({type(error).__name__}: {error})",
            fix="install the modules that define them, or use one process",
        ) from error
