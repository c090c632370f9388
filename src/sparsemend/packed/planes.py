"""Floating-point values in fewer bits: their exponents are much alike, their mantissas are not.

The bytes of all values are sorted by significance, the sign moved to the end, and each of these
planes gets a Huffman code where that makes it shorter: of 16 bits of float16 about
:data:`EXPECTED_BITS` remain.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_UNSIGNED: dict[int, Any] = {2: np.uint16, 4: np.uint32}


# Of 16 bits of a value.
EXPECTED_BITS = 13.5


def encode(values: Tensor) -> tuple[list[int], bytes]:
    """Code values [N] of a floating type.

    Returns
    -------
    tuple
        Bytes of every plane, most significant first, and the planes.

    Examples
    --------
    >>> values = torch.linspace(1, 2, 1000, dtype=torch.float16)
    >>> lengths, content = encode(values)
    >>> len(content) < 2000, torch.equal(decode(lengths, content, torch.float16, 1000), values)
    (True, True)
    """
    size = values.element_size()
    plain = values.contiguous().view(torch.uint8).numpy().view(_UNSIGNED[size])
    turned = (plain << 1) | (plain >> (8 * size - 1))
    planes = [_shorter((turned >> 8 * i).astype(np.uint8)) for i in reversed(range(size))]
    return [len(plane) for plane in planes], b"".join(planes)


def _shorter(plane: NDArray[np.uint8]) -> bytes:
    plain = plane.tobytes()
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    coded = coder.compress(plain) + coder.flush()
    return min(plain, coded, key=len)  # plain if equal: only then lengths tell them apart


def decode(lengths: list[int], content: bytes, dtype: torch.dtype, count: int) -> Tensor:
    """The ``count`` values.

    Raises
    ------
    ValueError
        If they are not so many.
    """
    size = dtype.itemsize
    if len(lengths) != size or sum(lengths) != len(content):
        raise ValueError("coded values have another length")
    turned = np.zeros(count, _UNSIGNED[size])
    start = 0
    for length in lengths:
        plane = content[start : start + length]
        start += length
        if length != count:
            coder = zlib.decompressobj(-15)
            plane = coder.decompress(plane, count + 1)
        if len(plane) != count:
            raise ValueError("coded values are not as many as claimed")
        turned = (turned << 8) | np.frombuffer(plane, np.uint8).astype(turned.dtype)
    plain = (turned >> 1) | (turned << (8 * size - 1))
    if not count:
        return torch.zeros(0, dtype=dtype)
    return torch.from_numpy(plain.view(np.uint8).copy()).view(dtype)
