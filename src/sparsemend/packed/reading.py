"""Reading packed files, without trusting what they claim."""

from __future__ import annotations

import json
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.packed import planes
from sparsemend.packed.contents import DTYPES, FORMAT, VERSION, Packed
from sparsemend.packed.rice import MOST_BITS, Coded, decode, length
from sparsemend.packed.schema import graph_from_json

_LONGEST_INDEX = 64 * 2**20
_EXPANSION = 8192
"""Floats that a file may unpack to, for each of its bytes: more than any sensible sparsity."""
_FREE = 2**24
_INTEGERS = {"int64": torch.int64, "int32": torch.int32, "bool": torch.bool}


def read_packed(path: str | os.PathLike[str]) -> Packed:
    """Read a packed file: dense float32 tensors, and the graph if there is one.

    Raises
    ------
    SparsemendError
        If it is no packed file, incomplete, of a newer version, or claims what it does not hold.
        Nothing in it is run.
    """
    path = Path(path)
    if not path.is_file():
        raise SparsemendError("there is no such packed file", str(path))
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata = dict(file.metadata() or {})
            if metadata.get("format") != FORMAT:
                raise SparsemendError(
                    "this is no packed network", str(path), "a file of sm.export(format='packed')"
                )
            if metadata.get("format_version") != str(VERSION):
                raise SparsemendError(
                    "this packed network is of another version",
                    metadata.get("format_version"),
                    str(VERSION),
                    "read it with the version of sparsemend that wrote it",
                )
            parts = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        return _unpack(parts, metadata, path.stat().st_size)
    except SparsemendError:
        raise
    except (
        safetensors.SafetensorError,
        zlib.error,
        OSError,
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RecursionError,
        OverflowError,
    ) as error:
        raise SparsemendError(
            f"packed file {str(path)!r} is damaged ({error})", fix="copy or export it again"
        ) from error


def _unpack(parts: dict[str, Tensor], metadata: dict[str, str], size: int) -> Packed:
    if set(parts) != {"index", "positions", "values", "other"}:
        raise ValueError("it has other tensors")
    if not all(part.dtype == torch.uint8 and part.dim() == 1 for part in parts.values()):
        raise ValueError("its tensors have other shapes or types")
    reader = zlib.decompressobj()
    text = reader.decompress(parts["index"].numpy().tobytes(), _LONGEST_INDEX)
    if not reader.eof:
        raise ValueError("its index is too long or cut off")
    index = json.loads(text)
    most = _EXPANSION * size + _FREE
    dtype = DTYPES[index["dtype"]]
    tensors = _tensors(
        index["tensors"],
        parts["positions"].numpy().tobytes(),
        _floats(index["values"], parts["values"], dtype, most),
        _floats(index["other"], parts["other"], dtype, most),
        most,
    )

    def get(number: Any) -> Tensor:
        if not isinstance(number, int) or not 0 <= number < len(tensors):
            raise ValueError(f"tensor {number!r} is not there")
        return tensors[number]

    if "graph" in index:
        return Packed(graph_from_json(index["graph"], get), {}, metadata)
    return Packed(None, {str(key): get(number) for key, number in index["state"].items()}, metadata)


def _floats(entry: Any, part: Tensor, dtype: torch.dtype, most: int) -> Tensor:
    count, lengths = entry
    found = planes.decode(lengths, part.numpy().tobytes(), dtype, _count(count, most)).float()
    if not bool(found.isfinite().all()):
        raise ValueError("it holds NaN or infinite values")
    return found


def _tensors(
    records: list[Any], positions: bytes, values: Tensor, other: Tensor, most: int
) -> list[Tensor]:
    """Dense tensors, in order; together no more than ``most`` numbers."""
    wholes: dict[str, Any] = {"positions": positions, "values": values, "other": other}
    read = dict.fromkeys(wholes, 0)
    found: list[Tensor] = []

    def take(part: str, count: int) -> Any:
        start = read[part]
        read[part] += count
        if read[part] > len(wholes[part]):
            raise ValueError(f"its {part} end too early")
        return wholes[part][start : start + count]

    for record in records:
        shape = [_count(size, most) for size in record["shape"]]
        size = math.prod(shape)
        most -= size
        if most < 0:
            raise ValueError("it claims to hold far more than it can")
        if "integers" in record:
            dtype, numbers = record["integers"]
            tensor = torch.tensor(numbers, dtype=_INTEGERS[dtype])
        elif "kept" in record:
            kept, low = _count(record["kept"], size), _count(record["low"], MOST_BITS)
            unary = _count(record["unary"], 8 * len(positions))
            content = take("positions", length(low, unary, kept))
            where = decode(Coded(low, unary, content), count=kept, size=size)
            tensor = torch.zeros(size)
            tensor[torch.from_numpy(where.astype(np.int64))] = take("values", kept)
        else:
            tensor = take("other", size).clone()
        found.append(tensor.reshape(shape))
    if any(read[part] != len(whole) for part, whole in wholes.items()):
        raise ValueError("it holds more than it says")
    return found


def _count(value: Any, most: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise ValueError(f"{value!r} is no count of at most {most}")
    return value
