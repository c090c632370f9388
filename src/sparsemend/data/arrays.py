"""Arrays in one ``.npz`` or ``.safetensors`` file.

They are named ``x_train``, ``y_train``, ``x_test`` and ``y_test``; also understood are
``train_images`` and ``train_labels``, ``images_train``, ``train_x``, and ``val`` for ``test``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from sparsemend.data._split import Split, check_labels, split_name
from sparsemend.errors import SparsemendError
from sparsemend.files import npz_arrays, npz_keys

SUFFIXES = (".npz", ".safetensors")

_IMAGES = ("x", "images", "data")
_LABELS = ("y", "labels", "targets")
_CHANNELS = (1, 3, 4)


def read_arrays(path: Path) -> dict[str, Split]:
    """Return the splits of a file of arrays.

    Raises
    ------
    SparsemendError
        If the file is damaged or names no array of images.
    """
    keys = _keys(path)
    images = _by_split(keys, _IMAGES)
    labels = _by_split(keys, _LABELS)
    if not images:
        raise SparsemendError(
            f"file {str(path)!r} names no array of images",
            sorted(keys)[:10],
            "x_train, y_train, x_test and y_test, or train_images, train_labels and so on",
            "rename the arrays",
        )
    return {split: ArraySplit(path, key, labels.get(split)) for split, key in images.items()}


def _by_split(keys: Iterable[str], kinds: Sequence[str]) -> dict[str, str]:
    """Return the key of each split: ``x_train`` and ``train_x`` are both (x, train)."""
    found: dict[str, str] = {}
    for key in sorted(keys):
        first, _, second = key.lower().partition("_")
        for kind, name in ((first, second), (second, first)):
            split = split_name(name)
            if kind in kinds and split is not None:
                found.setdefault(split, key)
    return found


class ArraySplit:
    """One split of a file of arrays; each array is read when first asked for, and then kept.

    Parameters
    ----------
    path
        The file.
    images
        Key of the images: [n, H, W], [n, H, W, C] or [n, C, H, W] with 1, 3 or 4 channels;
        uint8, or floating point with pixels in [0, 1].
    labels
        Key of the labels: integers [n] or [n, 1]; None where there are none.
    """

    def __init__(self, path: Path, images: str, labels: str | None) -> None:
        self._path = path
        self._image_key = images
        self._label_key = labels

    def __len__(self) -> int:
        return len(self._images)

    @cached_property
    def _images(self) -> Tensor:
        images = _array(self._path, self._image_key)
        source = f"array {self._image_key!r} of {str(self._path)!r}"
        if images.dtype != torch.uint8 and not images.is_floating_point():
            raise SparsemendError(
                f"{source} has the wrong type",
                images.dtype,
                "uint8 pixels, or floating point in [0, 1]",
            )
        return _channels_first(images, source)

    @cached_property
    def labels(self) -> Tensor | None:
        if self._label_key is None:
            return None
        source = f"array {self._label_key!r} of {str(self._path)!r}"
        return check_labels(_array(self._path, self._label_key), len(self), source=source)

    def images(self, rows: Sequence[int]) -> Tensor:
        return self._images[torch.as_tensor(rows, dtype=torch.int64)]


def _channels_first(images: Tensor, source: str) -> Tensor:
    """Return images as [n, C, H, W]."""
    shape = tuple(images.shape)
    if images.ndim == 3:
        return images.unsqueeze(1)
    if images.ndim == 4:
        first, last = shape[1] in _CHANNELS, shape[3] in _CHANNELS
        if first and not last:
            return images
        if last and not first:
            return images.permute(0, 3, 1, 2)
    raise SparsemendError(
        f"{source} has the wrong shape",
        shape,
        "[n, H, W], [n, H, W, C] or [n, C, H, W] with 1, 3 or 4 channels",
    )


def _keys(path: Path) -> list[str]:
    try:
        if path.suffix == ".npz":
            return npz_keys(path)
        with safetensors.safe_open(path, framework="pt") as file:
            return list(file.keys())
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


def _array(path: Path, key: str) -> Tensor:
    try:
        if path.suffix == ".npz":
            return torch.from_numpy(npz_arrays(path, [key])[key])
        with safetensors.safe_open(path, framework="pt") as file:
            tensor: Tensor = file.get_tensor(key)
            return tensor
    except _UNREADABLE as error:
        raise _damaged(path, error) from error


_UNREADABLE = (OSError, ValueError, TypeError, safetensors.SafetensorError)


def _damaged(path: Path, error: Exception) -> SparsemendError:
    return SparsemendError(
        f"file {str(path)!r} cannot be read as arrays ({error})",
        allowed="numbers in .npz or .safetensors, nothing pickled",
        fix="it may be half-written: write or download it again",
    )
