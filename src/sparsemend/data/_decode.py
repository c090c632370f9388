"""Decoding of image files (PNG, JPEG, WebP, ...) to uint8 tensors."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from torch import Tensor

from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError
from sparsemend.imports import require

# Pillow modes that are one 8-bit channel, or lose nothing but transparency on the way there.
_GRAY_MODES = ("1", "L", "LA", "La")
# More than 8 bits a channel: what range they fill is only known of those with 16.
_DEEP_MODES = ("I", "F")
_SIXTEEN_BITS = "I;16"
SAMPLE = 100  # images whose kind decides for all


class Decoder:
    """Decodes the images of one split, which must all end in the size of the first one seen.

    What most of a sample are decides for all: one channel if they are gray, else three (RGB);
    three in a tie. The others are converted: gray ones become RGB, colours their brightness, 16
    bits the upper 8. Transparency is dropped. Where most have more than 8 bits, such images are
    refused, as it is not known how the network was given them; where it is known how many
    channels it wants, that decides instead.

    Parameters
    ----------
    sample
        Returns some images of the split, as paths or open files, of which only the beginning is
        read; asked for once, when the first image is decoded.
    preprocessing
        How they are resized and cut, and how many channels they are to have.
    """

    def __init__(
        self,
        sample: Callable[[], Iterable[Path | IO[bytes]]],
        preprocessing: Preprocessing | None = None,
    ) -> None:
        self._preprocessing = preprocessing or Preprocessing()
        self._image = require("PIL.Image", purpose="decoding images", extra="images")
        self._sample = sample
        self._first: tuple[str, tuple[int, ...]] | None = None

    def decode(self, encoded: Iterable[tuple[str, bytes]]) -> Tensor:
        """Decode images.

        Parameters
        ----------
        encoded
            For every image where it comes from, for the error's text, and the file's bytes.

        Returns
        -------
        Tensor
            uint8 [n, C, H, W].

        Raises
        ------
        SparsemendError
            For an image that is damaged or has another size than the first.
        """
        pixels = np.stack([self._decode_one(where, content) for where, content in encoded])
        return torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    @cached_property
    def _kinds(self) -> Counter[str]:
        """How many images of the sample are of each kind; damaged ones are of none."""
        kinds: Counter[str] = Counter()
        for file in self._sample():
            mode = self._mode_of(file)
            if mode is not None:
                kinds[_kind(mode)] += 1
        return kinds

    @property
    def _mode(self) -> str:
        """The Pillow mode that all images are converted to."""
        if self._preprocessing.channels is not None:
            return "L" if self._preprocessing.channels == 1 else "RGB"
        return "L" if self._kinds["gray"] > self._kinds["colour"] else "RGB"

    @property
    def _all_deep(self) -> bool:
        """Whether so many have more than 8 bits that the network may have been given those."""
        if self._preprocessing.channels is not None:
            return False
        return self._kinds["deep"] * 2 > self._kinds.total()

    def _mode_of(self, file: Path | IO[bytes]) -> str | None:
        try:
            with self._image.open(file) as image:
                return str(image.mode)
        except Exception:  # Pillow's readers raise many types; decoding the image says which
            return None

    def _decode_one(
        self, where: str, content: bytes
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        try:
            image = self._image.open(io.BytesIO(content))
            mode = image.mode
            if _kind(mode) == "deep":
                if self._all_deep or not _has_sixteen_bits(mode):
                    raise SparsemendError(
                        f"image {where} has too many bits a channel", mode, "8 bits a channel"
                    )
                image = self._image.fromarray((np.array(image) >> 8).astype(np.uint8))
            pixels = np.array(self._preprocessing.fit(image.convert(self._mode)))
        except SparsemendError:
            raise
        # Pillow's readers raise many types on damaged files.
        except Exception as error:
            raise SparsemendError(
                f"image {where} cannot be decoded ({type(error).__name__}: {error})",
                fix="replace it or take it out of the data set",
            ) from error
        if pixels.ndim == 2:
            pixels = pixels[:, :, None]
        if self._first is None:
            self._first = (where, pixels.shape)
        elif self._first[1] != pixels.shape:
            raise SparsemendError(
                f"images differ in size: {self._first[0]} is {_size(self._first[1])}, "
                f"{where} is {_size(pixels.shape)}",
                fix="say how they become one, as with --resize 256 --crop 224",
            )
        return pixels


def evenly(count: int) -> range:
    """Rows of a sample of ``count`` images, at equal distances."""
    return range(0, count, -(-count // SAMPLE) or 1)


def _kind(mode: str) -> Literal["gray", "colour", "deep"]:
    if mode.partition(";")[0] in _DEEP_MODES:
        return "deep"
    return "gray" if mode in _GRAY_MODES else "colour"


def _has_sixteen_bits(mode: str) -> bool:
    return mode.startswith(_SIXTEEN_BITS)


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
