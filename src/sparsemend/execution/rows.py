"""Batches from what holds single inputs or labels beside them: data loaders, data sets, rows.

A ``DataLoader`` gives labels with its inputs; a ``datasets.Dataset`` and a list of dictionaries
hold one input each, whose columns go to the arguments of the network that bear their names.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from sparsemend.checks import takes_keyword
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, Batches, is_labelled

_ROWS = 32
_LABELS = ("label", "labels", "label_ids")
_MASK = "attention_mask"


def as_batches(model: nn.Module, data: Any) -> Batches:
    """Unlabelled batches of any data; what gives them already is returned as it is.

    Parameters
    ----------
    model
        The network that is to run on them.
    data
        Batches of any form; a ``DataLoader``, whose labels are left out; a ``datasets.Dataset`` or
        a list of dictionaries of lists, arrays and numbers, one an input: shorter sequences are
        padded with 0 and masked.

    Raises
    ------
    SparsemendError
        If no column has the name of an argument of the network.
    """
    if isinstance(data, DataLoader):
        return [batch[0] if is_labelled(batch) else _without_labels(batch) for batch in data]
    if hasattr(data, "column_names") and hasattr(data, "__getitem__"):
        return list(_collated(model, [data[index] for index in range(len(data))]))
    if isinstance(data, Sequence) and data and all(map(_is_row, data)):
        return list(_collated(model, data))
    found: Batches = data
    return found


def _is_row(part: Any) -> bool:
    """Whether a dictionary is one input: tensors in it would make it a batch."""
    return (
        isinstance(part, Mapping)
        and bool(part)
        and not any(isinstance(value, Tensor) for value in part.values())
    )


def _without_labels(batch: Batch) -> Batch:
    if not isinstance(batch, Mapping):
        return batch
    return {name: value for name, value in batch.items() if name not in _LABELS}


def _collated(model: nn.Module, rows: Sequence[Mapping[str, Any]]) -> Iterator[Batch]:
    columns = [
        name for name in rows[0] if name not in _LABELS and takes_keyword(model.forward, name)
    ]
    columns = [name for name in columns if not isinstance(rows[0][name], str)]
    if not columns:
        raise SparsemendError(
            "no column of the data has the name of an argument of the network",
            list(rows[0]),
            ", ".join(_parameters(model)),
            "rename the columns, or turn texts into tensors with the network's tokenizer",
        )
    for start in range(0, len(rows), _ROWS):
        chosen = rows[start : start + _ROWS]
        batch = {name: _stacked([row[name] for row in chosen]) for name in columns}
        lengths = {len(row[columns[0]]) for row in chosen if np.ndim(row[columns[0]])}
        if len(lengths) > 1 and _MASK not in batch and takes_keyword(model.forward, _MASK):
            batch[_MASK] = _stacked([[1] * len(row[columns[0]]) for row in chosen])
        yield batch


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
