"""Copies of networks, which not every network allows."""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
from torch import nn

from sparsemend.errors import RAISED, SparsemendError, raised_by

Network = TypeVar("Network", bound=nn.Module)

# What nn.Module itself holds in an instance.
_PARTS = frozenset(vars(nn.Module()))


def copied(model: Network) -> Network:
    """A deep copy of a network.

    Raises
    ------
    SparsemendError
        If ``copy.deepcopy`` cannot copy it; names the attribute that prevents it.
    """
    try:
        return copy.deepcopy(model)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except RAISED as error:
        raise SparsemendError(
            f"the network cannot be copied{_culprit(model)}: {raised_by(error)}",
            allowed="networks that copy.deepcopy copies",
            fix="take such objects out of the network, or give their module a __deepcopy__",
        ) from error


def _culprit(model: nn.Module) -> str:
    """The first attribute that cannot be copied, in words; empty where none is found."""
    for name, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute in _PARTS:
                continue
            try:
                copy.deepcopy(value)
            except RAISED:
                return f", for attribute {attribute!r} of {f'module {name!r}' if name else 'it'}"
    return ""
