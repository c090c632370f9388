"""How a network wants its images: size, cut and normalisation, as its library says it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sparsemend.errors import SparsemendError

INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")


@dataclass(frozen=True)
class Preprocessing:
    """What is done to an image of any size before a network sees it.

    In this order: resized, cut in the centre, scaled to [0, 1], normalised.

    Attributes
    ----------
    resize
        Length of the shorter side in pixels, the longer one keeping the aspect; or height and
        width, whatever the aspect; None to leave images as they are.
    crop
        Height and width that are cut in the centre, smaller images being padded with black; None
        to cut nothing.
    mean, std
        Per channel, of pixels in [0, 1]; both or neither.
    interpolation
        Of the resizing, by Pillow, which looks at all pixels that shrink into one.
    channels
        1 or 3 to convert every image; None: as most of the images are.

    Examples
    --------
    >>> Preprocessing(resize=256, crop=(224, 224), mean=(0.5,), std=(0.5,)).crop
    (224, 224)
    """

    resize: int | tuple[int, int] | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str = "bilinear"
    channels: int | None = None

    def __post_init__(self) -> None:
        lengths = (self.resize,) if isinstance(self.resize, int) else self.resize or ()
        for name, values in (("resize", lengths), ("crop", self.crop or ())):
            if not all(isinstance(value, int) and value > 0 for value in values):
                raise SparsemendError(f"{name} does not fit", values, "positive numbers of pixels")
        if self.interpolation not in INTERPOLATIONS:
            raise SparsemendError(
                "unknown interpolation", self.interpolation, ", ".join(INTERPOLATIONS)
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _numbers(name, getattr(self, name)))
        _check_normalisation(self.mean, self.std)

    def but(self, **changes: Any) -> Preprocessing:
        """The same with some attributes changed; what is None stays as it is."""
        given = {name: value for name, value in changes.items() if value is not None}
        return dataclasses.replace(self, **given)

    def fit(self, image: Any) -> Any:
        """Resize and cut a Pillow image."""
        if self.resize is not None:
            image = image.resize(self._size(image.size), self._filter(image))
        if self.crop is not None:
            height, width = self.crop
            left, top = (
                round((have - want) / 2)
                for have, want in zip(image.size, (width, height), strict=True)
            )
            image = image.crop((left, top, left + width, top + height))
        return image

    def _size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height after the resizing; what is longer is rounded down, as torchvision."""
        if isinstance(self.resize, tuple):
            height, width = self.resize
            return width, height
        assert self.resize is not None
        short = min(size)
        return tuple(  # type: ignore[return-value]
            self.resize if side == short else max(1, int(self.resize * side / short))
            for side in size
        )

    def _filter(self, image: Any) -> Any:
        from PIL.Image import Resampling

        if image.mode in ("1", "P"):  # whose values are no brightness
            return Resampling.NEAREST
        return Resampling[self.interpolation.upper()]


def _numbers(name: str, values: Sequence[float] | None) -> tuple[float, ...] | None:
    if values is None:
        return None
    try:
        return tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        allowed = "a sequence of numbers, one per channel"
        raise SparsemendError(f"{name} does not fit", values, allowed) from error


def _check_normalisation(mean: tuple[float, ...] | None, std: tuple[float, ...] | None) -> None:
    if mean is None and std is None:
        return
    if mean is None or std is None or len(mean) != len(std) or not mean:
        raise SparsemendError(
            "mean and std do not go together",
            (mean, std),
            "both or neither, one number per channel",
        )
    if not all(math.isfinite(value) for value in mean):
        raise SparsemendError("mean does not fit", mean, "finite numbers")
    if not all(math.isfinite(value) and value > 0 for value in std):
        raise SparsemendError("std does not fit", std, "positive numbers")
