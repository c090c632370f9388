"""The network and the data that a command is given."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

import sparsemend as sm
from sparsemend.cli._command import Given
from sparsemend.data import ImageData
from sparsemend.models import LoadedModel


@dataclass(frozen=True)
class Source:
    """A loaded network and its data."""

    loaded: LoadedModel
    data: ImageData
    batch_size: int

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    def calibration(self, size: int, seed: int, *, flip: bool = False) -> list[Tensor]:
        """Unlabelled batches from the training split; ``flip`` adds mirrored copies."""
        images = self.data.calibration(size, seed=seed)
        if flip:
            images = torch.cat([images, images.flip(-1)])
        return list(images.split(self.batch_size))

    def heldout(self, size: int, calibration_size: int, seed: int) -> list[Tensor] | None:
        """Unlabelled batches that the calibration does not contain; None where size is 0."""
        if not size:
            return None
        unseen = self.data.heldout(size, calibration_size=calibration_size, seed=seed)
        return list(unseen.split(self.batch_size))

    def test(self, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Labelled batches from the test split."""
        return self.data.test_batches(self.batch_size, limit=limit)


def load_model(given: Given) -> LoadedModel:
    """The network on its device."""
    loaded = sm.models.load(
        given.model, given.weights, num_classes=given.num_classes, width=given.width
    )
    chosen = given.device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        loaded.model.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise sm.SparsemendError(
            "--device cannot be used", chosen, "cpu, cuda, cuda:1 …"
        ) from error
    return loaded


def load_source(given: Given) -> Source:
    """The network and its data; normalisation from the options, else from the weights."""
    if given.batch_size < 1:
        raise sm.SparsemendError("--batch-size is too small", given.batch_size, "1 or more")
    loaded = load_model(given)
    images = sm.data.load(
        given.data,
        mean=_numbers("--mean", given.mean) or loaded.mean,
        std=_numbers("--std", given.std) or loaded.std,
    )
    return Source(loaded, images, given.batch_size)


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise sm.SparsemendError(
            f"{option} is no list of numbers", text, "0.49,0.48,0.45"
        ) from error
