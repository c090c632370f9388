"""Compressed checkpoints: safetensors with the original keys, and metadata about the work."""

from __future__ import annotations

import importlib.metadata
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path

from torch import nn

from sparsemend.allocation import Allocation
from sparsemend.boundary import public
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.models.weights import load_weights, read_weights, save_weights

FORMAT = "sparsemend-checkpoint"
# Of files of other formats, whose readers cannot read this one.
_MISLEADING = (".pt", ".pth", ".bin", ".ckpt", ".pkl", ".onnx")


@public
def save_checkpoint(
    model: nn.Module,
    path: str | os.PathLike[str],
    allocation: Allocation,
    metadata: Mapping[str, object] | None = None,
    *,
    added_biases: tuple[str, ...] = (),
) -> None:
    """Write a sparse network as safetensors: its state dict, strictly under its own keys.

    Zeros are stored densely, so the file is as large as the dense one; it compresses well. The
    same network and facts give the same bytes.

    Parameters
    ----------
    model
        The sparse network.
    path
        File to write; it appears whole or not at all.
    allocation
        Kept counts and their rule, stored in the metadata.
    metadata
        Further facts (repair, mean, std …); values that are no strings become JSON.
    added_biases
        Module paths that got a bias parameter; the loader adds them to a plain network.

    Warns
    -----
    SparsemendWarning
        If the ending of the path is that of another format.
    """
    if Path(path).suffix in _MISLEADING:
        warnings.warn(
            f"{str(path)!r} is written as safetensors whatever its ending says: "
            "sparsemend.load_checkpoint reads it, torch.load does not; for that use "
            "torch.save(model.state_dict(), path)",
            SparsemendWarning,
            stacklevel=3,
        )
    facts: dict[str, object] = {
        **(metadata or {}),
        "format": FORMAT,
        "sparsemend_version": importlib.metadata.version("sparsemend"),
        "rule": allocation.rule,
        "sparsity": repr(allocation.sparsity),
        "kept": allocation.kept,
        "total": allocation.total,
        "counts": dict(allocation),
        "added_biases": list(added_biases),
    }
    header = {str(k): v if isinstance(v, str) else _json(k, v) for k, v in facts.items()}
    state = dict(model.state_dict())
    for name in allocation:
        key = f"{name}.weight"
        if key in state:
            state[key] = state[key] + 0.0  # a pruned weight that was scaled may be -0
    save_weights(Path(path), state, header)


def _json(key: str, value: object) -> str:
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        kind = type(value).__name__
        allowed = "a string, a number, or lists and dictionaries of them"
        raise SparsemendError(f"metadata {key!r} cannot be stored", kind, allowed) from error


@public
def load_checkpoint(model: nn.Module, path: str | Path) -> dict[str, str]:
    """Load a checkpoint into a plain network with strict keys, in place.

    Parameters
    ----------
    model
        A network of the checkpoint's architecture, as it is or within DataParallel and the like.
        Layers that the repair gave a bias get one. Nothing is changed where the file does not fit.
    path
        A file that :func:`save_checkpoint` or ``sparsemend compress`` wrote.

    Returns
    -------
    dict
        The file's metadata.

    Raises
    ------
    SparsemendError
        If the file cannot be read or does not fit the network.
    """
    state, metadata = read_weights(path)
    load_weights(model, state, source=str(path), metadata=metadata)
    return metadata
