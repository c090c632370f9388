"""Figures as files: SVG, PNG through the optional package resvg-py, their numbers as CSV."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sparsemend.errors import SparsemendError
from sparsemend.files import atomic_path, make_folder
from sparsemend.reports.drawing.figure import Figure
from sparsemend.reports.drawing.svg import svg_file

FORMATS = ("svg", "png", "csv")
# Pixels per unit of the drawing: sharp at 300 dots per inch over half a page.
_ZOOM = 2


def image(figure: Figure, kind: str) -> bytes:
    """One figure on white, as the bytes of an SVG or PNG file, or its numbers as those of a CSV.

    Raises
    ------
    SparsemendError
        For another format, or for PNG where resvg-py is not installed.
    """
    if kind not in FORMATS:
        raise SparsemendError("unknown format of a figure", kind, ", ".join(FORMATS))
    if kind == "csv":
        return figure.table.csv().encode()
    drawing = svg_file(figure.plates, figure.columns)
    if kind == "svg":
        return drawing.encode()
    return bytes(_resvg().svg_to_bytes(svg_string=drawing, zoom=_ZOOM))


def write_images(figures: Sequence[Figure], folder: Path, kind: str) -> tuple[Path, ...]:
    """Write every figure as ``folder``/key.kind; the folder is made if missing."""
    drawn = {folder / f"{figure.key}.{kind}": image(figure, kind) for figure in figures}
    make_folder(folder, "the folder for figures")
    for path, content in drawn.items():
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    return tuple(drawn)


def _resvg() -> Any:
    try:
        return importlib.import_module("resvg_py")
    except ImportError as error:
        raise SparsemendError(
            "PNG figures need the package 'resvg_py', which is not installed",
            fix="pip install 'sparsemend[figures]', or write SVG",
        ) from error
