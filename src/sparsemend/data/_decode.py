"""Decoding of image files (PNG, JPEG, WebP, ...) to uint8 tensors."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from sparsemend.data._optional import require
from sparsemend.errors import SparsemendError

# Pillow modes that are one 8-bit channel, or lose nothing but transparency on the way there.
_GRAY_MODES = ("1", "L", "LA", "La")
# More than 8 bits a channel: conversion would clip.
_DEEP_MODES = ("I", "F")


class Decoder:
    """Decodes the images of one split, which must all have the shape of the first one seen.

    Gray images give one channel, all others three (RGB); transparency is dropped.
    """

    def __init__(self) -> None:
        self._image = require("PIL.Image", purpose="decoding images")
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

    def _decode_one(
        self, where: str, content: bytes
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        try:
            image = self._image.open(io.BytesIO(content))
            mode = image.mode
            if mode.partition(";")[0] in _DEEP_MODES:
                raise SparsemendError(
                    f"image {where} has too many bits a channel", mode, "8 bits a channel"
                )
            pixels = np.array(image.convert("L" if mode in _GRAY_MODES else "RGB"))
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
                fix="resize them all to the size the network was trained with",
            )
        return pixels


def _size(shape: tuple[int, ...]) -> str:
    height, width, channels = shape
    return f"{height}x{width} with {channels} channel{'s' if channels > 1 else ''}"
