"""The formats by name."""

from __future__ import annotations

from collections.abc import Mapping

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.exports.formats.c import C
from sparsemend.exports.formats.format import Format
from sparsemend.exports.formats.onnx import ONNX
from sparsemend.exports.formats.packed import PACKED
from sparsemend.exports.formats.shrink import SHRINK

FORMATS: Mapping[str, Format] = {each.name: each for each in (PACKED, ONNX, SHRINK, C)}


def format_named(name: str) -> Format:
    """The format of a name.

    Raises
    ------
    SparsemendError
        If there is none.
    """
    if name not in FORMATS:
        raise SparsemendError(
            "unknown format", name, ", ".join(FORMATS), did_you_mean(name, FORMATS)
        )
    return FORMATS[name]
