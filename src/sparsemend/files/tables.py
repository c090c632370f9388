"""Comma-separated values that a spreadsheet takes as values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

Cell = str | int | float | None

# What makes a spreadsheet read a cell as a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def csv_text(rows: Iterable[Iterable[Cell]], *, newline: str = "\n") -> str:
    """Write rows as comma-separated values; None is empty.

    Text that a spreadsheet would run as a formula, such as a layer that is named ``=1+1``, gets
    an apostrophe in front; numbers stay numbers.
    """
    return "".join(f"{_line(row)}{newline}" for row in rows)


def _line(row: Iterable[Cell]) -> str:
    line = io.StringIO()
    # Only the characters of its own line end are quoted: these are all that end a line.
    csv.writer(line, lineterminator="\r\n").writerow([_plain(cell) for cell in row])
    return line.getvalue().removesuffix("\r\n")


def _plain(cell: Cell) -> Cell:
    if isinstance(cell, str) and cell.startswith(_FORMULA) and not _is_number(cell):
        return f"'{cell}"
    return cell


def _is_number(text: str) -> bool:
    if text[0] not in "+-" or text != text.strip():
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True
