"""ONNX, without dead structure; extra ``onnx``."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from sparsemend.errors import SparsemendError
from sparsemend.exports.formats.format import Format, Request
from sparsemend.exports.formats.shrink import smaller_module


def _write(request: Request) -> None:
    if importlib.util.find_spec("onnxscript") is None:
        raise SparsemendError(
            "the ONNX export needs the extra onnx", fix="pip install 'sparsemend[onnx]'"
        )
    module, inputs = smaller_module(request.model, request.example)
    write_onnx(module, inputs, request.path)


def write_onnx(
    module: torch.nn.Module,
    args: tuple[Any, ...],
    path: Path,
    kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Write a module as one ONNX file, quietly, by PyTorch's exporter."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            torch.onnx.export(
                module,
                args,
                str(path),
                kwargs=dict(kwargs or {}),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _read(request: Request) -> Callable[..., Any] | None:
    if importlib.util.find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    session = onnxruntime.InferenceSession(
        request.path.read_bytes(), providers=["CPUExecutionProvider"]
    )
    names = [each.name for each in session.get_inputs()]

    def run(*inputs: Any) -> list[torch.Tensor]:
        feed = {name: x.numpy() for name, x in zip(names, inputs, strict=True)}
        return [torch.from_numpy(each) for each in session.run(None, feed)]

    return run


ONNX = Format("onnx", _write, _read, (".onnx",))
