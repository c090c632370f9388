"""Batches from what holds single inputs or labels beside them: data loaders, data sets, rows.

A ``DataLoader`` and a data set of PyTorch give labels with their inputs; a ``datasets.Dataset`` and
a list of dictionaries hold one input each, whose columns go to the arguments of the network that
bear their names.
"""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset

from sparsemend.checks import takes_keyword
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import LABELS, Batch, Batches, as_tensor, as_tensors, is_labelled

_ROWS = 32
_MASK = "attention_mask"


def as_batches(model: nn.Module, data: Any) -> Batches:
    """Unlabelled batches of any data; what gives them already is returned as it is.

    Parameters
    ----------
    model
        The network that is to run on them.
    data
        Batches of any form; one mapping of tensors, which is a batch; numpy arrays in the place of
        tensors; a ``DataLoader`` or a data set of PyTorch, whose labels are left out, integers
        [N] beside the inputs or whatever the network takes no argument for; a
        ``datasets.Dataset`` or a list of dictionaries of lists, arrays and numbers, one an input:
        shorter sequences are padded with 0 and masked. Pairs with integers [N] are arguments of a
        network that cannot do without the second.

    Raises
    ------
    SparsemendError
        If no column has the name of an argument of the network, or a text is given.
    """
    if isinstance(data, str | os.PathLike):
        raise SparsemendError(
            "the batches are a text",
            data,
            "an iterable of batches of inputs, or one tensor [N, ...]",
            "read files with sparsemend.data.load, and pass its calibration_batches",
        )
    data = loaded(data)
    if isinstance(data, DataLoader):
        return _Unlabelled(model, data)
    if isinstance(data, np.ndarray):
        return as_tensor(data)
    arrays = (Tensor, np.ndarray)
    if isinstance(data, Mapping) and any(isinstance(part, arrays) for part in data.values()):
        return [as_tensors(data)]
    if hasattr(data, "column_names") and hasattr(data, "__getitem__"):
        return list(_collated(model, [data[index] for index in range(len(data))]))
    if isinstance(data, Sequence) and data and all(map(_is_row, data)):
        return list(_collated(model, data))
    if isinstance(data, Sequence) and data and all(isinstance(part, np.ndarray) for part in data):
        return [as_tensor(part) for part in data]
    if isinstance(data, list | tuple) and any(map(is_labelled, data)):
        required, _ = _positions(model)
        return [_arguments(part, required) for part in data]
    found: Batches = data
    return found


def _arguments(batch: Batch, required: int) -> Batch:
    """A batch; integers that the network cannot do without are no labels, such as lengths."""
    return (tuple(batch), {}) if is_labelled(batch) and required == len(batch) else batch


def loaded(data: Any) -> Any:
    """Batches of what gives inputs with labels in another form than batches.

    Parameters
    ----------
    data
        A data set of PyTorch, which is read in batches; a tuple of inputs and labels, which is one
        batch; all else is returned as it is.
    """
    if isinstance(data, tuple) and all(isinstance(part, np.ndarray) for part in data):
        data = tuple(map(as_tensor, data))
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DataLoader(data, _ROWS)
    return [data] if isinstance(data, tuple) and is_labelled(data) else data


class _Unlabelled:
    """The batches of a data loader, read anew in every pass, without labels."""

    def __init__(self, model: nn.Module, loader: DataLoader[Any]) -> None:
        self._loader, self._model = loader, model
        self._required, self._most = _positions(model)

    def __iter__(self) -> Iterator[Batch]:
        return map(self._inputs, self._loader)

    def __len__(self) -> int:
        return len(self._loader)

    def _inputs(self, batch: Batch) -> Batch:
        if isinstance(batch, Mapping):
            return {name: batch[name] for name in _columns(self._model, batch)}
        if not isinstance(batch, Sequence) or isinstance(batch, str):
            return batch
        if is_labelled(batch):
            given = _arguments(batch, self._required)
            return batch[0] if given is batch else given
        if len(batch) > self._most:
            return batch[: self._most] if self._most > 1 else batch[0]
        return batch


def _positions(model: nn.Module) -> tuple[int, int]:
    """How many positional arguments a network must have and can take; 1 at least."""
    kinds = inspect.Parameter
    try:
        found = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):  # code that is not Python's
        return 1, sys.maxsize
    named = [x for x in found if x.kind in (kinds.POSITIONAL_ONLY, kinds.POSITIONAL_OR_KEYWORD)]
    any_number = any(x.kind is kinds.VAR_POSITIONAL for x in found)
    required = sum(x.default is kinds.empty for x in named)
    return max(1, required), sys.maxsize if any_number else max(1, len(named))


def _is_row(part: Any) -> bool:
    """Whether a dictionary is one input: tensors in it would make it a batch."""
    return (
        isinstance(part, Mapping)
        and bool(part)
        and not any(isinstance(value, Tensor) for value in part.values())
    )


def _collated(model: nn.Module, rows: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    columns = _columns(model, rows[0])
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        batch = {name: _stacked([row[name] for row in chosen]) for name in columns}
        lengths = {len(row[columns[0]]) for row in chosen if np.ndim(row[columns[0]])}
        if len(lengths) > 1 and _MASK not in batch and takes_keyword(model.forward, _MASK):
            batch[_MASK] = _stacked([[1] * len(row[columns[0]]) for row in chosen])
        yield batch


def _columns(model: nn.Module, row: Mapping[str, Any]) -> list[str]:
    """What of a row, or of a batch of rows, the network takes."""
    columns = [
        name
        for name, value in row.items()
        if name not in LABELS and takes_keyword(model.forward, name) and not _is_text(value)
    ]
    if not columns:
        raise SparsemendError(
            "no column of the data has the name of an argument of the network",
            list(row),
            ", ".join(_parameters(model)),
            "rename the columns, or turn texts into tensors with the network's tokenizer",
        )
    return columns


def _is_text(value: Any) -> bool:
    """Whether it is a text, or a list of them, as a loader collates texts."""
    return isinstance(value[0] if isinstance(value, list) and value else value, str)


def _stacked(values: Sequence[Any]) -> Tensor:
    """Values as one tensor, the shorter ones padded with 0 behind."""
    tensors = [torch.as_tensor(np.asarray(value)) for value in values]
    if tensors[0].dtype == torch.float64:
        tensors = [tensor.float() for tensor in tensors]
    if len({tensor.shape for tensor in tensors}) == 1:
        return torch.stack(tensors)
    return nn.utils.rnn.pad_sequence(tensors, batch_first=True)


def _parameters(model: nn.Module) -> list[str]:
    return list(inspect.signature(model.forward).parameters)
