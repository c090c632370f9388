"""Programs of torch.export without dead structure: plain PyTorch, for any of its runtimes."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_flatten

from sparsemend.execution.batches import Batch, arguments
from sparsemend.exports.formats.format import Format, Request
from sparsemend.graphs import shrink, to_module, trace


def smaller_module(model: nn.Module, example: Batch | None) -> tuple[nn.Module, tuple[Any, ...]]:
    """The network as a plain module without dead structure, and the example's tensors for it."""
    assert example is not None
    leaves, _ = tree_flatten(arguments(example))
    module = to_module(shrink(trace(model, example).graph))
    return module, tuple(leaf.detach().cpu() for leaf in leaves)


def _write(request: Request) -> None:
    module, inputs = smaller_module(request.model, request.example)
    with torch.no_grad():
        program = torch.export.export(module, inputs)
    content = io.BytesIO()  # where the disk is full, PyTorch's writer ends the whole process
    torch.export.save(program, content)
    request.path.write_bytes(content.getvalue())


def _read(request: Request) -> Callable[..., Any] | None:
    # From memory, for files must have its ending.
    module = torch.export.load(io.BytesIO(request.path.read_bytes())).module()

    def run(*inputs: Any) -> tuple[Any, ...]:
        outputs = module(*inputs)
        return outputs if isinstance(outputs, tuple) else (outputs,)

    return run


SHRINK = Format("shrink", _write, _read, (".pt2",))
