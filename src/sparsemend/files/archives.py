"""Zip archives and ``.npz`` files, read without trusting the sizes that they claim.

NumPy allocates what an array's header asks for before it reads a byte. Here every claim is first
held against the size of the file.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

# Deflate cannot shrink a byte run further than 1032 to 1.
_RATIO = 1032
_UNREADABLE = (
    OSError,
    EOFError,
    TypeError,
    MemoryError,
    RuntimeError,  # such as an encrypted member
    zipfile.BadZipFile,
    zlib.error,
)


def npz_keys(path: Path) -> list[str]:
    """Return the names of the arrays in an ``.npz`` file.

    Raises
    ------
    ValueError
        If it is none, or a damaged one; says why.
    """
    with _opened(path) as archive:
        return [name.removesuffix(".npy") for name in archive.namelist()]


def npz_arrays(path: Path, keys: Iterable[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read arrays of numbers or text from an ``.npz`` file; nothing is ever unpickled.

    Parameters
    ----------
    path
        The file.
    keys
        Which arrays; all by default.

    Raises
    ------
    ValueError
        If the file is damaged, lacks an array, claims more than it holds, or holds objects.
    """
    with _opened(path) as archive:
        names = {name.removesuffix(".npy"): name for name in archive.namelist()}
        chosen = list(names) if keys is None else list(keys)
        for key in chosen:
            if key not in names:
                raise ValueError(f"there is no array {key!r}")
        return {key: _array(archive, names[key]) for key in chosen}


def check_archive(path: Path) -> None:
    """Raise ``ValueError`` where a zip archive claims more than it holds; other files pass."""
    if zipfile.is_zipfile(path):
        with _opened(path):
            pass


def _check_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Raise ``ValueError`` where members claim more than a file of ``size`` bytes can hold."""
    for member in archive.infolist():
        stored = member.compress_type == zipfile.ZIP_STORED
        most = member.compress_size * (1 if stored else _RATIO)
        if member.compress_size > size or member.file_size > most:
            raise ValueError(f"{member.filename!r} claims more bytes than the file holds")


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    """An archive with sound sizes; what its readers raise becomes ``ValueError``."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size)
            yield archive
    except _UNREADABLE as error:
        raise ValueError(str(error)) from error


def _array(archive: zipfile.ZipFile, name: str) -> NDArray[Any]:
    with archive.open(name) as file:
        shape, dtype = _header(file)
        if dtype.hasobject:
            raise ValueError(f"{name!r} holds Python objects, not numbers")
        if math.prod(shape) * dtype.itemsize != archive.getinfo(name).file_size - file.tell():
            raise ValueError(f"{name!r} does not hold an array of shape {shape} and type {dtype}")
    with archive.open(name) as file:
        array: NDArray[Any] = npy.read_array(file, allow_pickle=False)
        return array


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type that an array claims."""
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    try:
        shape, _, dtype = readers[npy.read_magic(file)](file)
    # NumPy's own texts advise to allow pickles.
    except (ValueError, KeyError, RecursionError):
        raise ValueError("it holds something else than arrays of numbers") from None
    return shape, dtype
