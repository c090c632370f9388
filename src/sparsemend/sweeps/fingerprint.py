"""Fingerprints of networks and inputs: equal where a cell would give the same result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from sparsemend.diagnosis import Diagnosis
from sparsemend.execution.batches import (
    Batch,
    batch_size,
    check_unlabelled,
    no_batches,
    plain,
    split_labels,
)
from sparsemend.patterns import FREE

_LENGTH = 16


def model_fingerprint(model: nn.Module) -> str:
    """Of the class, and of every parameter's and buffer's name, type, shape and values."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, Tensor):
            _add(digest, tensor)
    return digest.hexdigest()[:_LENGTH]


def inputs_fingerprint(*sets: Iterable[Batch]) -> str:
    """Of sets of batches: of the values, and of how they are batched."""
    digest = hashlib.sha256()
    for batches in sets:
        digest.update(b"set")
        for batch in batches:
            _add_batch(digest, batch)
    return digest.hexdigest()[:_LENGTH]


def labelled_fingerprint(batches: Iterable[Batch]) -> tuple[str, int]:
    """The same of labelled batches, and their number of inputs, in one pass.

    Raises
    ------
    SparsemendError
        If a batch has no labels, or there is none.
    """
    digest, count = hashlib.sha256(), 0
    for index, batch in enumerate(batches):
        inputs, labels = split_labels(batch, f"test[{index}]")
        check_unlabelled(inputs, f"test[{index}]")
        _add_batch(digest, (inputs, labels))
        count += batch_size(batch)
    if not count:
        raise no_batches("test")
    return digest.hexdigest()[:_LENGTH], count


def diagnosis_fingerprint(diagnosis: Diagnosis) -> str:
    """Of all that a diagnosis says of layers."""
    values = diagnosis.to_dict()
    del values["coverage"]
    for key, default in (("pattern", FREE.name), ("sensitivities", None)):
        if values[key] == default:  # fingerprints of earlier versions stay
            del values[key]
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def mask_fingerprint(masks: Iterable[tuple[str, Tensor]]) -> str:
    """Of masks by layer name."""
    digest = hashlib.sha256()
    for name, mask in masks:
        digest.update(name.encode())
        _add(digest, mask)
    return digest.hexdigest()[:_LENGTH]


def _add_batch(digest: Any, batch: Batch) -> None:
    digest.update(b"batch")
    for leaf in tree_leaves(plain(batch)):
        if isinstance(leaf, Tensor):
            _add(digest, leaf)
        else:
            digest.update(repr(leaf).encode())


def _add(digest: Any, tensor: Tensor) -> None:
    values = tensor.detach().cpu().contiguous()
    digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
    digest.update(values.reshape(-1).view(torch.uint8).numpy())
