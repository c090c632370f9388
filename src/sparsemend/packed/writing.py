"""Writing packed files."""

from __future__ import annotations

import importlib.metadata
import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.graphs import Graph
from sparsemend.packed import planes, rice
from sparsemend.packed.contents import DTYPES, FORMAT, VERSION
from sparsemend.packed.schema import graph_to_json


def pack(
    network: Graph | Mapping[str, Tensor],
    *,
    dtype: str = "float16",
    metadata: Mapping[str, str] | None = None,
) -> bytes:
    """The content of a packed file.

    It is a safetensors file of four tensors: ``positions`` of the kept weights, coded; their
    ``values``, coded; ``other`` values, of tensors that are not sparse; and ``index``, compressed
    JSON, which says what is where. No code is in it.

    Parameters
    ----------
    network
        A graph, which runs by itself, or a state dict, which loads into the original network.
    dtype
        Type of the values: ``"float16"``, ``"bfloat16"`` or ``"float32"``.
    metadata
        Facts to keep with it.

    Raises
    ------
    SparsemendError
        For an unknown type, values that it cannot hold, and graphs with functions that a file may
        not name.
    """
    if dtype not in DTYPES:
        hint = did_you_mean(dtype, DTYPES)
        raise SparsemendError("unknown type of values", dtype, ", ".join(DTYPES), hint)
    parts = _Parts(DTYPES[dtype])
    content: dict[str, Any] = {}
    if isinstance(network, Graph):
        content["graph"] = graph_to_json(network, parts.put)
    else:
        content["state"] = {key: parts.put(value) for key, value in network.items()}
    content["tensors"] = parts.records
    coded = {}
    for name, found in (("values", parts.values), ("other", parts.other)):
        whole = torch.cat([torch.zeros(0, dtype=parts.dtype), *found])
        lengths, coded[name] = planes.encode(whole)
        content[name] = [len(whole), lengths]
    content["dtype"] = dtype
    text = json.dumps(content, separators=(",", ":"), allow_nan=False).encode()
    tensors = {
        "index": _bytes(zlib.compress(text, 9)),
        "positions": _bytes(b"".join(parts.positions)),
        "values": _bytes(coded["values"]),
        "other": _bytes(coded["other"]),
    }
    facts = {
        **(metadata or {}),
        "format": FORMAT,
        "format_version": str(VERSION),
        "sparsemend_version": importlib.metadata.version("sparsemend"),
    }
    return safetensors.torch.save(tensors, facts)


def expected_length(kept: int, size: int) -> float:
    """About how many bytes a tensor takes in a packed file of float16.

    Parameters
    ----------
    kept
        Values that are not zero.
    size
        All of them.
    """
    sparse = rice.expected_length(kept, size) + kept * planes.EXPECTED_BITS / 8
    return min(sparse, size * planes.EXPECTED_BITS / 8)


class _Parts:
    """Tensors taken apart: sparse ones into positions and values, others as they are."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype = dtype
        self.records: list[dict[str, Any]] = []
        self.positions: list[bytes] = []
        self.values: list[Tensor] = []
        self.other: list[Tensor] = []

    def put(self, tensor: Tensor) -> int:
        """Take a tensor and return its number."""
        if tensor.is_complex():
            raise SparsemendError("a packed file holds no complex numbers", str(tensor.dtype))
        record: dict[str, Any] = {"shape": list(tensor.shape)}
        flat = tensor.detach().cpu().reshape(-1)
        if not tensor.is_floating_point():
            record["integers"] = self._integers(tensor, flat)
        else:
            if not bool(torch.isfinite(flat).all()):
                raise SparsemendError("a tensor to pack holds NaN or infinite values")
            kept = flat.nonzero().reshape(-1)
            coded = rice.encode(kept.numpy().astype(np.int64))
            bits = torch.finfo(self.dtype).bits
            if len(kept) * bits + 8 * len(coded.content) < len(flat) * bits:
                record |= {"kept": len(kept), "low": coded.low, "unary": coded.unary}
                self.positions.append(coded.content)
                self.values.append(self._cast(flat[kept]))
            else:
                self.other.append(self._cast(flat))
        self.records.append(record)
        return len(self.records) - 1

    def _integers(self, tensor: Tensor, flat: Tensor) -> list[Any]:
        if flat.numel() > 4096:
            raise SparsemendError(
                "a packed file holds no large tensors of integers", list(tensor.shape)
            )
        return [str(tensor.dtype).removeprefix("torch."), flat.tolist()]

    def _cast(self, values: Tensor) -> Tensor:
        cast = values.to(self.dtype)
        if not bool(torch.isfinite(cast).all()):
            raise SparsemendError(
                "a value is too large for the type of packed values",
                float(values.abs().max()),
                f"at most {torch.finfo(self.dtype).max:g} in {self.dtype}",
                "choose dtype bfloat16 or float32",
            )
        return cast


def _bytes(content: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(content, np.uint8).copy())
