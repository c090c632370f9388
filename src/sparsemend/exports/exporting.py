"""Sparse networks in formats that are smaller, or run elsewhere."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_leaves

from sparsemend.boundary import HasModel, network_of, public
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, arguments, call, evaluation_mode
from sparsemend.exports.formats.format import Request
from sparsemend.exports.formats.registry import format_named
from sparsemend.files import atomic_path, filled_folder
from sparsemend.finite import check_network

_FOLDER = "the folder of the export"
_TOLERANCE = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""How far outputs may be from the network's, relative to the largest, by the type of weights."""


@dataclass(frozen=True)
class Export:
    """What was written.

    Attributes
    ----------
    path
        The file or folder.
    format
        Its format.
    size, dense_size
        Bytes of it, and of the network's parameters and buffers in memory.
    error
        Largest difference of the outputs for the example from the network's, relative to the
        largest output; None where that was not run.
    """

    path: Path
    format: str
    size: int
    dense_size: int
    error: float | None

    def __str__(self) -> str:
        share = 100 * self.size / max(self.dense_size, 1)
        text = (
            f"{self.path}: {self.format}, {self.size / 1024:,.1f} KiB, "
            f"{share:.2f} % of {self.dense_size / 1024:,.0f} KiB"
        )
        return text if self.error is None else f"{text}; outputs to {self.error:.1e}"


@public
def export(
    network: nn.Module | HasModel,
    path: str | os.PathLike[str],
    format: str = "packed",
    *,
    example: Batch | None = None,
    dtype: str = "float16",
    metadata: Mapping[str, str] | None = None,
) -> Export:
    """Write a sparse network for use elsewhere, and check what was written.

    Parameters
    ----------
    network
        A network, or a result of ``compress``; not changed.
    path
        File or folder to write.
    format
        ``"packed"``: a small file, for :func:`sparsemend.runtime.load`; BatchNorms are folded.
        Without an example the weights alone, under their own keys. ``"onnx"``: needs the extra
        ``onnx``. ``"shrink"``: a program of ``torch.export`` of plain PyTorch layers; like ONNX
        without channels that are constant or that nothing reads, where that changes no output.
        ``"c"``: a folder that compiles with any C compiler to a program for one batch of the
        example's shape.
    example
        A batch of inputs of the shape to run on; what is written is tried with it.
    dtype
        Type of the values in a packed file: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
    metadata
        Facts to keep with it, where the format can.

    Returns
    -------
    Export
        Sizes, and how close the outputs are.

    Raises
    ------
    SparsemendError
        For an unknown format, a missing example, a network that the format cannot hold, or
        outputs that are not the network's.
    """
    chosen = format_named(format)
    model = network_of(network)
    if chosen.needs_example and example is None:
        raise SparsemendError(
            f"format {format!r} needs an example", fix="pass example=, a batch of inputs"
        )
    if chosen.endings and Path(path).suffix not in chosen.endings:
        raise SparsemendError(
            f"a file of format {format!r} has another ending",
            str(path),
            " or ".join(chosen.endings),
        )
    for name, parameter in model.named_parameters():
        if is_lazy(parameter) or parameter.is_meta:
            raise SparsemendError(
                f"parameter {name!r} has no values",
                fix="build the network on the CPU, and run it once if it has lazy layers",
            )
    check_network(model)
    target = Path(path)
    written = atomic_path(target) if chosen.endings else filled_folder(target, _FOLDER)
    with written as temporary, evaluation_mode(model):
        request = Request(model, temporary, example, dtype, dict(metadata or {}))
        chosen.write(request)
        error = None if example is None else _error(request, chosen.read(request))
        most = _TOLERANCE[dtype] if chosen.name == "packed" else _TOLERANCE["float32"]
        if error is not None and not error <= most:  # what was there stays
            raise SparsemendError(
                f"the outputs of {str(path)!r} are not the network's, relative to the largest",
                error,
                f"at most {most}",
                "choose a wider dtype" if dtype != "float32" else "",
            )
    return Export(target, chosen.name, size_of(target), dense_size(model), error)


def dense_size(model: nn.Module) -> int:
    """Bytes of a network's parameters and buffers."""
    return sum(x.numel() * x.element_size() for x in model.state_dict().values())


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [path] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in files if file.is_file())


def _error(request: Request, run: Any) -> float | None:
    if run is None or request.example is None:
        return None
    args, kwargs = arguments(request.example)
    inputs = [leaf.cpu() for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    expected = [
        x for x in tree_leaves(call(request.model, request.example)) if isinstance(x, Tensor)
    ]
    ours = torch.cat([torch.as_tensor(x).double().reshape(-1) for x in run(*inputs)])
    wanted = torch.cat([x.detach().cpu().double().reshape(-1) for x in expected])
    if not len(wanted):
        return 0.0
    return float((ours - wanted).abs().max() / (wanted.abs().max() or 1.0))
