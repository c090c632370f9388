"""A folder of image files by class: ``train/CLASS/*.png`` and ``test/CLASS/*.png``.

Classes are numbered in the alphabetical order of their folders, as torchvision does; a folder in
which no split has an image is no class. A split whose images lie in no class folder has no
labels. Without folders for the splits, the whole folder is one split: test if its name says so,
otherwise train. Links are followed; hidden files and folders are left out, as are those that
archives and storage systems add, such as ``__MACOSX``. Gray images among coloured ones become
coloured, and the other way round, as most of a split are; sizes are as the network wants them.

A text file of paths, one a line, is a split without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path

import torch
from torch import Tensor

from sparsemend.data._decode import Decoder, evenly
from sparsemend.data._listing import SUFFIXES, has_images, images_of, loose_images, subfolders
from sparsemend.data._split import TRAIN, Split, split_name
from sparsemend.data._wants import Wants, text_lines
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError


def read_folder(path: Path, wants: Wants | None = None) -> dict[str, Split]:
    """Return the splits of an image folder.

    Raises
    ------
    SparsemendError
        If folders of splits and of classes lie side by side, or images beside class folders,
        or two folders are the same split.
    """
    folders: dict[str, Path] = {}
    others = []
    for folder in filter(has_images, subfolders(path)):
        name = split_name(folder.name)
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
    found = {
        split: {sub.name: list(images_of(sub)) for sub in subfolders(folder)}
        for split, folder in folders.items()
    }
    names = {name for classes in found.values() for name, files in classes.items() if files}
    numbers = {name: number for number, name in enumerate(sorted(names))}
    how = (wants or Wants()).preprocessing
    return {
        split: _split(folders[split], classes, numbers, how) for split, classes in found.items()
    }


def _split(
    folder: Path,
    by_class: Mapping[str, Sequence[Path]],
    numbers: Mapping[str, int],
    preprocessing: Preprocessing,
) -> FolderSplit:
    loose = loose_images(folder)
    classes = [[(file, numbers[name]) for file in files] for name, files in by_class.items()]
    if loose and any(classes):
        raise SparsemendError(
            f"folder {str(folder)!r} has images beside its class folders",
            loose[0].name,
            "either class folders or images",
            "move the images into the folder of their class",
        )
    if loose:
        return FolderSplit(loose, None, preprocessing)
    # One of every class in turn, so that any prefix of the split has its share of each.
    rows = [row for turn in zip_longest(*classes) for row in turn if row is not None]
    labels = torch.tensor([number for _, number in rows])
    return FolderSplit([file for file, _ in rows], labels, preprocessing)


class FolderSplit:
    """Image files, read when asked for.

    Parameters
    ----------
    files
        One image each.
    labels
        int64 [n], or None.
    preprocessing
        How they are resized and cut.
    """

    is_images = True

    def __init__(
        self, files: Sequence[Path], labels: Tensor | None, preprocessing: Preprocessing
    ) -> None:
        self._files = tuple(files)
        self._decoder = Decoder(
            lambda: (self._files[row] for row in evenly(len(self))), preprocessing
        )
        self.labels = labels

    def __len__(self) -> int:
        return len(self._files)

    def inputs(self, rows: Sequence[int]) -> Tensor:
        chosen = [self._files[row] for row in rows]
        return self._decoder.decode((repr(str(file)), _read(file)) for file in chosen)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise SparsemendError(f"image {str(file)!r} cannot be read ({error})") from error


def read_list(path: Path, wants: Wants) -> dict[str, Split]:
    """Return the split of a text file that lists images, from its own folder or absolute."""
    files = [path.parent / line for line in text_lines(path)]
    missing = [str(file) for file in files if not file.is_file()]
    if missing:
        raise SparsemendError(f"{str(path)!r} lists images that do not exist", missing[:3])
    name = split_name(path.stem) or TRAIN
    return {name: FolderSplit(files, None, wants.preprocessing)}


def is_list(path: Path) -> bool:
    """Whether a text file lists images."""
    if not path.is_file() or path.suffix not in (".txt", ".lst"):
        return False
    return Path(next(iter(text_lines(path)), "")).suffix.lower() in SUFFIXES
