"""Folders to write into."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparsemend.errors import SparsemendError
from sparsemend.files.atomic import cannot_write, note_written
from sparsemend.files.temporaries import remove_leftovers, temporary_path


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
        raise _refused(folder, f"{what} cannot be made", error) from error


def check_folder(folder: Path, what: str) -> None:
    """Refuse a folder that could not be filled, before work is done for it.

    Raises
    ------
    SparsemendError
        If something else is there, or the folder around it is missing or may not be written.
    """
    if folder.exists() and not folder.is_dir():
        raise SparsemendError(f"{what} is a file", str(folder), fix="choose another")
    probe = temporary_path(folder if folder.is_dir() else folder.parent)
    try:
        probe.mkdir()
        probe.rmdir()
    except (OSError, ValueError) as error:
        raise _refused(folder, f"{what} cannot be written", error) from error


def _refused(folder: Path, problem: str, error: OSError | ValueError) -> SparsemendError:
    reason = error.strerror if isinstance(error, OSError) else error
    return SparsemendError(f"{problem} ({reason})", str(folder), fix="choose another")


@contextmanager
def filled_folder(folder: Path, what: str) -> Iterator[Path]:
    """Yield an empty temporary folder, whose content goes to ``folder`` at the end.

    Where ``folder`` is there already, files of other names stay. After an error it is as it was.

    Raises
    ------
    SparsemendError
        If it cannot be made, ``what`` naming it, or written to.
    """
    make_folder(folder.parent, "the folder around it")
    check_folder(folder, what)
    remove_leftovers(folder.parent)
    temporary = temporary_path(folder.parent)
    try:
        temporary.mkdir()
        yield temporary
        make_folder(folder, what)
        for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
            target = folder / file.relative_to(temporary)
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)
        note_written(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
