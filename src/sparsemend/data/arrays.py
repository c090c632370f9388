"""Arrays in one ``.npz`` or ``.safetensors`` file.

They are named ``x_train``, ``y_train``, ``x_test`` and ``y_test``; also understood are
``train_images`` and ``train_labels``, ``images_train``, ``train_x``, and ``val`` for ``test``.

Under any other names, with or without a word for the split, they are inputs as they are, the first
dimension counting them: one array is the network's only argument, several are its keywords.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import safetensors
import torch
from torch import Tensor

from sparsemend.data._split import TRAIN, Batch, Split, check_labels, split_name
from sparsemend.data._wants import Wants
from sparsemend.errors import SparsemendError
from sparsemend.files import npz_arrays, npz_keys

SUFFIXES = (".npz", ".safetensors")

_IMAGES = ("x", "images", "data")
_LABELS = ("y", "labels", "targets")
_CHANNELS = (1, 3, 4)


def read_arrays(path: Path, _: Wants | None = None) -> dict[str, Split]:
    """Return the splits of a file of arrays.

    Raises
    ------
    SparsemendError
        If the file is damaged or has no array of inputs.
    """
    keys = _keys(path)
    images = _by_split(keys, _IMAGES)
    labels = _by_split(keys, _LABELS)
    if images:
        return {split: ArraySplit(path, key, labels.get(split)) for split, key in images.items()}
    others = _others(keys)
    if not others:
        raise SparsemendError(
            f"file {str(path)!r} names no array of inputs",
            sorted(keys)[:10],
            "x_train, y_train, x_test and y_test, or train_images, train_labels and so on; "
            "any other names for inputs that are no images",
            "rename the arrays",
        )
    return {split: InputSplit(path, found, labels.get(split)) for split, found in others.items()}


def _others(keys: Iterable[str]) -> dict[str, dict[str, str]]:
    """Split → name without the word for the split → key, of arrays that are no labels."""
    found: dict[str, dict[str, str]] = {}
    for key in sorted(keys):
        first, _, rest = key.partition("_")
        start, _, last = key.rpartition("_")
        name, split = key, TRAIN
        for stem, word in ((rest, first), (start, last)):
            if stem and split_name(word) is not None:
                name, split = stem, split_name(word) or TRAIN
        if name.lower() not in (*_LABELS, *_IMAGES):
            found.setdefault(split, {})[name] = key
    return found


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

    is_images = True

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
        return _labels(self._path, self._label_key, len(self))

    def inputs(self, rows: Sequence[int]) -> Tensor:
        return self._images[torch.as_tensor(rows, dtype=torch.int64)]


class InputSplit:
    """One split of a file of arrays that are no images; each is read when first asked for.

    Parameters
    ----------
    path
        The file.
    keys
        Name of an input → key of its array [n, ...]; floating point becomes float32, other
        numbers int64.
    labels
        Key of the labels, or None.
    """

    is_images = False

    def __init__(self, path: Path, keys: Mapping[str, str], labels: str | None) -> None:
        self._path, self._keys, self._label_key = path, dict(keys), labels

    def __len__(self) -> int:
        return len(next(iter(self._arrays.values())))

    @cached_property
    def _arrays(self) -> dict[str, Tensor]:
        found = {name: _array(self._path, key) for name, key in self._keys.items()}
        if len({tensor.shape[:1] for tensor in found.values()}) > 1 or all(
            tensor.dim() < 2 for tensor in found.values()
        ):
            raise SparsemendError(
                f"arrays of {str(self._path)!r} are no inputs that belong together",
                {key: tuple(found[name].shape) for name, key in self._keys.items()},
                "the same number of inputs in the first dimension, and more dimensions",
            )
        return {
            name: tensor.float() if tensor.is_floating_point() else tensor.long()
            for name, tensor in found.items()
        }

    @cached_property
    def labels(self) -> Tensor | None:
        return _labels(self._path, self._label_key, len(self))

    def inputs(self, rows: Sequence[int]) -> Batch:
        chosen = torch.as_tensor(rows, dtype=torch.int64)
        found = {name: tensor[chosen] for name, tensor in self._arrays.items()}
        return found if len(found) > 1 else next(iter(found.values()))


def _labels(path: Path, key: str | None, count: int) -> Tensor | None:
    """Labels of ``count`` inputs; None where the file has none."""
    if key is None:
        return None
    return check_labels(_array(path, key), count, source=f"array {key!r} of {str(path)!r}")


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
