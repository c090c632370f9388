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
from sparsemend.data import DataSet, Preprocessing
from sparsemend.data.registry import takes
from sparsemend.execution.offload import check_device
from sparsemend.models import LoadedModel
from sparsemend.models.sources.huggingface import find_tokenizer


@dataclass(frozen=True)
class Source:
    """A loaded network and its data; ``offload``: where it computes, if not where it lies."""

    loaded: LoadedModel
    data: DataSet
    batch_size: int
    offload: str | None = None

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    def calibration(self, size: int, seed: int, *, flip: bool = False) -> list[Any]:
        """Unlabelled batches from the training split; ``flip`` adds mirrored copies."""
        batches = self.data.calibration_batches(size, self.batch_size, seed=seed)
        if not flip:
            return batches
        if not all(isinstance(batch, Tensor) and batch.dim() == 4 for batch in batches):
            raise sm.SparsemendError("--flip is for images", fix="leave it out")
        images = torch.cat(batches)
        return list(torch.cat([images, images.flip(-1)]).split(self.batch_size))

    def heldout(self, size: int, calibration_size: int, seed: int) -> list[Any] | None:
        """Unlabelled batches that the calibration does not contain; None where size is 0."""
        if not size:
            return None
        return self.data.heldout_batches(
            size, self.batch_size, calibration_size=calibration_size, seed=seed
        )

    @property
    def is_labelled(self) -> bool:
        """Whether accuracy can be measured."""
        return self.data.has_labels and self.data.test_size > 0

    def tested(self, limit: int | None) -> int:
        """On how many inputs accuracy is measured."""
        return self.data.test_size if limit is None else min(limit, self.data.test_size)

    def test(self, limit: int | None) -> Iterator[tuple[Any, Tensor]]:
        """Labelled batches from the test split."""
        return self.data.test_batches(self.batch_size, limit=limit)


def describe_sizes(data: DataSet, calibration_size: int, heldout_size: int | None = None) -> str:
    """Which inputs serve for what, as a line; the held-out ones where they have a use."""
    text = f"{data.train_size:,} inputs: {calibration_size:,} to calibrate with"
    if heldout_size is None:
        return text
    return f"{text}, {f'{heldout_size:,} others to judge on' if heldout_size else 'none held out'}"


def load_model(given: Given) -> LoadedModel:
    """The network on its device."""
    offload = given.values.get("offload")
    if offload is not None:
        check_device(offload)
    loaded = sm.models.load(
        given.model,
        given.weights,
        arguments=_arguments(given.model_arg or ()),
        num_classes=given.num_classes,
        width=given.width,
    )
    best = "cuda" if offload is None and torch.cuda.is_available() else "cpu"
    chosen = given.device or best
    try:
        if torch.device(chosen).type == "meta":
            raise RuntimeError("it holds no values")
        loaded.model.to(chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise sm.SparsemendError(
            "--device cannot be used", chosen, "cpu, cuda, cuda:1 …"
        ) from error
    return loaded


def load_source(given: Given) -> Source:
    """The network and its data; normalisation from the options, else from the weights."""
    if given.batch_size < 1:
        raise sm.SparsemendError("--batch-size is too small", given.batch_size, "1 or more")
    loaded = load_model(given)
    preprocessing = (loaded.preprocessing or Preprocessing()).but(
        mean=_numbers("--mean", given.mean),
        std=_numbers("--std", given.std),
        resize=_lengths("--resize", given.resize),
        crop=_square(_lengths("--crop", given.crop)),
    )
    for option in ("resize", "crop"):
        asked = getattr(given, option)
        if asked is not None and not takes(given.data, "preprocessing"):
            raise sm.SparsemendError(
                f"--{option} has no use for data {given.data!r}",
                asked,
                "images in folders, lists or parquet files",
                "leave it out",
            )
    data = sm.data.load(
        given.data,
        preprocessing=preprocessing,
        tokenizer=_tokenizer(given.tokenizer) or loaded.tokenizer,
        columns=given.column or (),
    )
    return Source(loaded, data, given.batch_size, given.values.get("offload"))


def _tokenizer(name: str | None) -> Any:
    found = None if name is None else find_tokenizer(name, local_files_only=True)
    if name is not None and found is None:
        raise sm.SparsemendError(
            "--tokenizer is neither a folder nor in the local cache", name, "tokenizer.json in it"
        )
    return found


def _lengths(option: str, text: str | None) -> int | tuple[int, int] | None:
    """``256``, or ``224x320`` as height and width."""
    if text is None:
        return None
    try:
        found = tuple(int(part) for part in str(text).lower().split("x"))
    except ValueError:
        found = ()
    if len(found) not in (1, 2):
        raise sm.SparsemendError(f"{option} is no size", text, "as in 256 or 224x320")
    return found[0] if len(found) == 1 else (found[0], found[1])


def _square(lengths: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (lengths, lengths) if isinstance(lengths, int) else lengths


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
