"""Packed files, for the runtime and for small downloads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparsemend.exports.formats.format import Format, Request
from sparsemend.graphs import trace
from sparsemend.packed import pack, read_packed


def _write(request: Request) -> None:
    model, example = request.model, request.example
    network = model.state_dict() if example is None else trace(model, example).graph
    content = pack(network, dtype=request.dtype, metadata=request.metadata)
    request.path.write_bytes(content)


def _read(request: Request) -> Callable[..., Any] | None:
    graph = read_packed(request.path).graph
    return None if graph is None else graph.run


PACKED = Format("packed", _write, _read, (".packed", ".safetensors"), needs_example=False)
