"""What a file format has to offer: its splits, each a sequence of images with labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from sparsemend.errors import SparsemendError

TRAIN, TEST, VALIDATION = "train", "test", "validation"

# What files, folders and arrays are called, and the split they then are.
_NAMES = {
    "train": TRAIN,
    "training": TRAIN,
    "test": TEST,
    "testing": TEST,
    "val": VALIDATION,
    "valid": VALIDATION,
    "validation": VALIDATION,
}


# A tensor, or keyword arguments of a network by name; every tensor has the inputs first.
Batch = Any


class Split(Protocol):
    """One split of a data set: inputs by row, read on request, and their labels.

    A format returns a dictionary of these, by split name.
    """

    def __len__(self) -> int:
        """Return the number of inputs."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """Class of every image, int64 [n], or None where the data has no labels."""
        ...

    @property
    def is_images(self) -> bool:
        """Whether the inputs are images, which are to be normalised."""
        ...

    def inputs(self, rows: Sequence[int]) -> Batch:
        """Return inputs in the order of ``rows``.

        Images [len(rows), C, H, W] are either uint8, or floating point as they are to be
        normalised (pixels in [0, 1]).
        """
        ...


class TensorSplit:
    """A split that is in memory.

    Parameters
    ----------
    images
        [n, C, H, W], uint8 or floating point.
    labels
        int64 [n], or None.
    """

    is_images = True

    def __init__(self, images: Tensor, labels: Tensor | None) -> None:
        self._images = images
        self.labels = labels

    def __len__(self) -> int:
        return len(self._images)

    def inputs(self, rows: Sequence[int]) -> Tensor:
        return self._images[torch.as_tensor(rows, dtype=torch.int64)]


def split_name(name: str) -> str | None:
    """Return the split that is meant by a name such as ``train`` or ``val``, else None."""
    return _NAMES.get(name.lower())


def check_labels(labels: Tensor, size: int, *, source: str) -> Tensor:
    """Return labels as int64 [size], or raise ``SparsemendError``."""
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels.squeeze(1)
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise SparsemendError(
            f"labels of {source} have the wrong type", labels.dtype, "integer class numbers"
        )
    if labels.shape != (size,):
        raise SparsemendError(
            f"labels of {source} have the wrong shape",
            tuple(labels.shape),
            f"one integer for each of the {size} images",
        )
    labels = labels.to(torch.int64)
    if size and labels.min() < 0:
        raise SparsemendError(
            f"labels of {source} are below 0",
            int(labels.min()),
            "class numbers from 0",
            "leave the label column out where the labels are not known",
        )
    return labels
