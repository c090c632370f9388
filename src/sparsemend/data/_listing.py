"""Which files of a folder are images: what users keep there, not what programs leave there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sparsemend.errors import SparsemendError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
)
# Folders that archives and storage systems make. Some hold previews, which are images as well.
_FOREIGN = frozenset({"__MACOSX", "@eaDir", "@Recycle", "#recycle", "$RECYCLE.BIN", "lost+found"})


def images_of(folder: Path) -> Iterator[Path]:
    """Yield the image files of a folder and below, each folder in alphabetical order.

    Links are followed, but no folder is entered twice. Hidden files and folders are left out.
    """
    yield from _walk(folder, set())


def loose_images(folder: Path) -> list[Path]:
    """Return the image files of a folder, not of those below, in alphabetical order."""
    return [path for path in _entries(folder) if _is_image(path)]


def subfolders(folder: Path) -> list[Path]:
    """Return the folders in a folder, in alphabetical order."""
    return [path for path in _entries(folder) if path.is_dir()]


def has_images(folder: Path) -> bool:
    """Say whether there is an image file in the folder or below."""
    return any(True for _ in images_of(folder))


def _walk(folder: Path, entered: set[tuple[int, int]]) -> Iterator[Path]:
    status = folder.stat()
    place = (status.st_dev, status.st_ino)
    if place in entered:
        return
    entered.add(place)
    for path in _entries(folder):
        if path.is_dir():
            yield from _walk(path, entered)
        elif _is_image(path):
            yield path


def _entries(folder: Path) -> list[Path]:
    try:
        paths = sorted(folder.iterdir())
    except OSError as error:
        raise SparsemendError(
            f"folder {str(folder)!r} cannot be read ({error.strerror})"
        ) from error
    return [path for path in paths if path.name not in _FOREIGN and not path.name.startswith(".")]


def _is_image(path: Path) -> bool:
    """A link that leads nowhere counts: reading it says so, leaving it out would not."""
    if path.suffix.lower() not in SUFFIXES:
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())
