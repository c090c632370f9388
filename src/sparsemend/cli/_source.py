"""The network and the data that a command is given."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

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
        given.model,
        given.weights,
        arguments=_arguments(given.model_arg or ()),
        num_classes=given.num_classes,
        width=given.width,
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


def _arguments(texts: Sequence[str]) -> dict[str, Any]:
    """Keywords from ``key=value``; values are Python literals, else texts.

    Examples
    --------
    >>> _arguments(["depth=3", "pretrained=false", "act=gelu", "sizes=[2, 4]"])
    {'depth': 3, 'pretrained': False, 'act': 'gelu', 'sizes': [2, 4]}
    """
    found: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip().isidentifier():
            raise sm.SparsemendError("--model-arg is written wrong", text, "key=value")
        found[key.strip()] = _value(value.strip())
    return found


def _value(text: str) -> Any:
    known = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in known:
        return known[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise sm.SparsemendError(
            f"{option} is no list of numbers", text, "0.49,0.48,0.45"
        ) from error
