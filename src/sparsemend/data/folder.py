"""A folder of image files by class: ``train/CLASS/*.png`` and ``test/CLASS/*.png``.

Classes are numbered in the alphabetical order of their folders, as torchvision does. A split
whose images lie in no class folder has no labels. Without folders for the splits, the whole
folder is one split: test if its name says so, otherwise train.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from sparsemend.data._decode import Decoder
from sparsemend.data._split import TRAIN, Split, split_name
from sparsemend.errors import SparsemendError

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff"}
)


def has_images(path: Path) -> bool:
    """Say whether there is an image file in the folder or below."""
    return any(_is_image(file) for file in path.rglob("*"))


def read_folder(path: Path) -> dict[str, Split]:
    """Return the splits of an image folder.

    Raises
    ------
    SparsemendError
        If folders of splits and of classes lie side by side, or images beside class folders,
        or two folders are the same split.
    """
    folders: dict[str, Path] = {}
    others = []
    for folder in _subfolders(path):
        name = split_name(folder.name)
        if not has_images(folder):
            continue
        if name is None:
            others.append(folder.name)
            continue
        if name in folders:
            raise SparsemendError(
                f"two folders of {str(path)!r} are the {name} split",
                [folders[name].name, folder.name],
                "one folder for each split",
            )
        folders[name] = folder
    if folders and others:
        # Either may be meant: "train" is also the name of a class.
        raise SparsemendError(
            f"folder {str(path)!r} has other folders of images beside its splits",
            others[:3],
            "train, test and validation, or classes, but not both",
            "move the others out",
        )
    if not folders:
        folders = {split_name(path.resolve().name) or TRAIN: path}
    # Over all splits, so that a class that one of them lacks does not shift the numbers.
    names = {sub.name for folder in folders.values() for sub in _subfolders(folder)}
    numbers = {name: number for number, name in enumerate(sorted(names))}
    return {split: _read_split(folder, numbers) for split, folder in folders.items()}


def _read_split(folder: Path, numbers: dict[str, int]) -> FolderSplit:
    loose = sorted(file for file in folder.iterdir() if _is_image(file))
    classes = [
        [(file, numbers[sub.name]) for file in sorted(sub.rglob("*")) if _is_image(file)]
        for sub in _subfolders(folder)
    ]
    if loose and any(classes):
        raise SparsemendError(
            f"folder {str(folder)!r} has images beside its class folders",
            loose[0].name,
            "either class folders or images",
            "move the images into the folder of their class",
        )
    if loose:
        return FolderSplit(loose, None)
    # One of every class in turn, so that any prefix of the split has its share of each.
    rows = [row for turn in zip_longest(*classes) for row in turn if row is not None]
    return FolderSplit([file for file, _ in rows], torch.tensor([number for _, number in rows]))


class FolderSplit:
    """Image files, read when asked for.

    Parameters
    ----------
    files
        One image each.
    labels
        int64 [n], or None.
    """

    def __init__(self, files: Sequence[Path], labels: Tensor | None) -> None:
        self._files = tuple(files)
        self._decoder = Decoder()
        self.labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def images(self, rows: Sequence[int]) -> Tensor:
        chosen = [self._files[row] for row in rows]
        return self._decoder.decode((repr(str(file)), _read(file)) for file in chosen)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SparsemendError(f"image {str(file)!r} cannot be read ({error})") from error


def _subfolders(path: Path) -> list[Path]:
    return sorted(sub for sub in path.iterdir() if sub.is_dir() and not sub.name.startswith("."))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file()
