"""Folders to write into."""

from __future__ import annotations

from pathlib import Path

from sparsemend.errors import SparsemendError


def make_folder(folder: Path, what: str) -> None:
    """Make a folder that may be there already.

    Raises
    ------
    SparsemendError
        If it cannot be made; ``what`` names it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # the latter for a null character
        reason = error.strerror if isinstance(error, OSError) else error
        raise SparsemendError(
            f"{what} cannot be made ({reason})", str(folder), fix="choose another"
        ) from error
