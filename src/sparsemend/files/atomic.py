"""Files that are either whole or not there."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import IO, Any

from sparsemend.errors import SparsemendError
from sparsemend.files.temporaries import create_temporary, remove_leftovers

_KINDS: dict[int, str] = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_FULL = "make room there, or choose another folder"
_FORBIDDEN = "choose a folder that may be written"
_FIXES: dict[int | None, str] = {
    errno.ENOENT: "choose an existing folder",
    errno.ENOTDIR: "choose an existing folder",
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: _FORBIDDEN,
}


# The files that were written within `written_files`.
_written: ContextVar[list[Path]] = ContextVar("written")


@contextmanager
def written_files() -> Iterator[list[Path]]:
    """Yield a list of the files that are written within, growing as they are."""
    token = _written.set([])
    try:
        yield _written.get()
    finally:
        _written.reset(token)


def note_written(path: Path) -> None:
    """Count a file or folder among those that are written within :func:`written_files`."""
    _written.get([]).append(path)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that is renamed to it at the end.

    A symbolic link stays, and what it leads to is replaced. A new file has the permissions that
    the umask gives, one that was there keeps its own. What writers that were killed left in the
    folder is removed.

    Raises
    ------
    SparsemendError
        If the folder does not exist or cannot be written, the disk is full, or ``path`` is a
        folder, a named pipe or a device.
    """
    temporary = None
    try:
        target, present = regular_target(path)
        remove_leftovers(target.parent)
        temporary = create_temporary(target.parent, private=present is not None)
        yield temporary
        _to_disk(temporary)
        if present is not None:
            with contextlib.suppress(OSError):  # only root may give files away
                os.chown(temporary, present.st_uid, present.st_gid)
            temporary.chmod(stat.S_IMODE(present.st_mode))
        temporary.replace(target)
        note_written(path)
    except BaseException as error:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno is not None:
            raise cannot_write(path, error) from error
        raise


def atomic_write(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Let ``write`` fill a temporary file that is then renamed to ``path``."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        write(file)


def check_target(path: Path) -> None:
    """Refuse a path at which :func:`atomic_path` could not write, before work is done for it.

    Raises
    ------
    SparsemendError
        As there.
    """
    try:
        target, _ = regular_target(path)
        create_temporary(target.parent, private=True).unlink()
    except OSError as error:
        raise cannot_write(path, error) from error


def regular_target(path: Path) -> tuple[Path, os.stat_result | None]:
    """Return the file that ``path`` leads to over all links, and what is known of it.

    Returns
    -------
    tuple
        The path without symbolic links; its status, None where there is no such file yet.

    Raises
    ------
    OSError
        If links lead nowhere, or to a folder.
    SparsemendError
        If there is something else than a file, which must not be replaced by one.
    """
    if "\0" in str(path):
        raise SparsemendError("cannot write there (a null character)", str(path))
    target = Path(os.path.realpath(path))
    try:
        present = target.stat()
    except FileNotFoundError:
        return target, None
    if stat.S_ISDIR(present.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(present.st_mode):
        kind = _KINDS.get(stat.S_IFMT(present.st_mode), "no regular file")
        raise SparsemendError(
            f"cannot write there (it is {kind})", str(path), fix="choose the path of a file"
        )
    return target, present


def cannot_write(path: Path, error: OSError) -> SparsemendError:
    """Return the error to raise where ``path`` cannot be written; says why."""
    fix = _FIXES.get(error.errno, "choose another path")
    return SparsemendError(f"cannot write there ({error.strerror or error})", str(path), fix=fix)


def _to_disk(file: Path) -> None:
    """Wait until the content is on the disk: a rename that comes before it could outlive it."""
    handle = os.open(file, os.O_RDWR)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some file systems cannot
            raise
    finally:
        os.close(handle)
