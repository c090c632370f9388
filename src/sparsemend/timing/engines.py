"""What can run a network on this machine: one entry each, in the order of the table."""

from __future__ import annotations

import copy
import importlib.util
import io
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sparsemend.errors import SparsemendWarning
from sparsemend.execution.batches import Batch, arguments
from sparsemend.exports.formats.onnx import write_onnx
from sparsemend.runtime import prepare
from sparsemend.timing.machine import has_amx

Run = Callable[[], Any]


@dataclass(frozen=True)
class Subject:
    """What is timed.

    Attributes
    ----------
    model
        In evaluation mode, on the CPU.
    example
        The batch.
    threads
        For every engine.
    """

    model: nn.Module
    example: Batch
    threads: int


@dataclass(frozen=True)
class Engine:
    """Something that runs networks.

    Attributes
    ----------
    name
        In tables and for ``engines=``.
    start
        Makes the network ready and returns what runs it once.
    needs
        Module that has to be installed.
    fits
        Whether it is worth a row on this machine.
    slow
        Whether getting ready takes so long that it has to be asked for.
    """

    name: str
    start: Callable[[Subject], Run]
    needs: str = ""
    fits: Callable[[], bool] = lambda: True
    slow: bool = False

    @property
    def is_there(self) -> bool:
        """Whether it can be used here."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def _eager(subject: Subject) -> Run:
    args, kwargs = arguments(subject.example)

    def run() -> Any:
        with torch.inference_mode():
            return subject.model(*args, **kwargs)

    return run


def _compiled(subject: Subject) -> Run:
    model = torch.compile(copy.deepcopy(subject.model))
    args, kwargs = arguments(subject.example)

    def run() -> Any:
        with torch.inference_mode():
            return model(*args, **kwargs)

    return run


def _bfloat16(subject: Subject) -> Run:
    def cast(x: Any) -> Any:
        return x.bfloat16() if isinstance(x, Tensor) and x.is_floating_point() else x

    model = copy.deepcopy(subject.model).bfloat16()
    return _eager(Subject(model, tree_map(cast, subject.example), subject.threads))


def _sparse(subject: Subject) -> Run:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsemendWarning)
        fast = prepare(subject.model, subject.example, threads=subject.threads)
    args, kwargs = arguments(subject.example)
    return lambda: fast(*args, **kwargs)


def _onnxruntime(subject: Subject) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = subject.threads
    options.inter_op_num_threads = 1
    content = _onnx(subject)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    values = _arrays(subject)
    names = [each.name for each in session.get_inputs()]
    feed = dict(zip(names, values, strict=True))
    return lambda: session.run(None, feed)


def _openvino(subject: Subject) -> Run:
    import openvino

    settings = {
        "INFERENCE_NUM_THREADS": subject.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
    }
    model = openvino.Core().read_model(io.BytesIO(_onnx(subject)))
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
    values = _arrays(subject)
    return lambda: request.infer(values)


def _arrays(subject: Subject) -> list[Any]:
    args, kwargs = arguments(subject.example)
    return [x.contiguous().numpy() for x in (*args, *kwargs.values())]


def _onnx(subject: Subject) -> bytes:
    """The network as ONNX, by PyTorch's own exporter and with its own folding."""
    args, kwargs = arguments(subject.example)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        write_onnx(subject.model, args, path, kwargs)
        return path.read_bytes()


SPARSE = "sparsemend"
ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        Engine("pytorch", _eager),
        Engine("torch.compile", _compiled, slow=True),
        Engine("pytorch bfloat16", _bfloat16, fits=has_amx),
        Engine("onnxruntime", _onnxruntime, needs="onnxruntime"),
        Engine("openvino", _openvino, needs="openvino"),
        Engine(SPARSE, _sparse),
    )
}
"""Engines by name; the last is ours."""
