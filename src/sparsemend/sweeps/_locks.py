"""A lock of a file itself: it holds under all of its names, hard links among them."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Behind all that SQLite locks, which begins at 2^30, and behind the end of any store.
_BYTE = 1 << 40

# Files locked by this process: opening one again and closing it would end SQLite's own locks.
_held: set[tuple[int, int]] = set()


@contextmanager
def locked_file(path: Path) -> Iterator[bool]:
    """Yield whether the lock was free; if so it is held until the end.

    The lock belongs to the open file: it ends with the process, however that ends. Where the
    system or the file system has no such locks, it only holds within the process.

    Parameters
    ----------
    path
        The file; an empty one is made where there is none.
    """
    place = _place(path.stat()) if path.exists() else None
    if place in _held:
        yield False
        return
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        place = _place(os.fstat(handle))
        if not _lock(handle):
            yield False
            return
        _held.add(place)
        try:
            yield True
        finally:
            _held.discard(place)
    finally:
        os.close(handle)


def _place(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _lock(handle: int) -> bool:
    if sys.platform != "linux":
        return True
    import fcntl

    # struct flock: type, whence, start, length, process (0).
    wanted = struct.pack("hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, _BYTE, 1, 0)
    try:
        fcntl.fcntl(handle, fcntl.F_OFD_SETLK, wanted)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
