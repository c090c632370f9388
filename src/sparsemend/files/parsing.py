"""Reading what somebody else wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from sparsemend.errors import SparsemendError

T = TypeVar("T")


def read_file(path: Path, what: str, read: Callable[[Path], T]) -> T:
    """Return what a file holds; whatever goes wrong, the error names the file.

    Parameters
    ----------
    path
        The file.
    what
        Of what kind it is to be, for the error's text: "plan".
    read
        From the path to what the file holds; raises where that is something else.

    Raises
    ------
    SparsemendError
        If there is no such file, it is a folder or a pipe, or ``read`` raised anything.
    """
    try:
        if path.is_file():
            return read(path)
        # A pipe could be waited for without end.
        problem = f"the {what} is no file" if path.exists() else f"there is no {what} file"
    except OSError as error:
        raise _cannot_read(path, what, error.strerror or error) from error
    except SparsemendError as error:
        raise SparsemendError(f"{what} file {str(path)!r}: {error}") from error
    # What a damaged file makes its readers raise is open-ended.
    except Exception as error:
        said = error if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
        raise _cannot_read(path, what, said) from error
    raise SparsemendError(problem, str(path))


def _cannot_read(path: Path, what: str, reason: object) -> SparsemendError:
    return SparsemendError(f"the {what} file cannot be read ({reason})", str(path))


def read_json(path: Path) -> Any:
    """Return what a JSON file says.

    Raises
    ------
    ValueError
        If it holds no JSON.
    """
    return parse_json(path.read_text(encoding="utf-8"))


def parse_json(text: str | bytes) -> Any:
    """Return what a JSON text says.

    Raises
    ------
    ValueError
        If it is no JSON, or nested too deeply to be read.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
