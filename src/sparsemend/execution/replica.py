"""A network's modules once more, on the same parameters and buffers.

Forward passes that take turns must not meet in what a network keeps on itself between its layers,
such as a skipped activation. Each runs in a replica of its own: attributes, and containers in
them, are its own; parameters, buffers and hooks are those of the network.
"""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TypeVar

from torch import nn

from sparsemend.execution.batches import Batch, call
from sparsemend.finite import traced

Module = TypeVar("Module", bound=nn.Module)

_CONTAINERS = (list, dict, set)
# What a module looks its parts up in; shared, so that a part that is added is seen.
_SHARED = frozenset(
    {
        "_parameters",
        "_buffers",
        "_forward_hooks",
        "_forward_hooks_with_kwargs",
        "_forward_hooks_always_called",
        "_forward_pre_hooks",
        "_forward_pre_hooks_with_kwargs",
    }
)


def replica(model: Module) -> Module:
    """A network that computes the same with the same weights, but keeps its own attributes.

    Parameters
    ----------
    model
        Any network; unchanged. Parts that cannot be copied are shared.
    """
    return _twin(model, {})


def run_replica(
    model: nn.Module, batch: Batch, within: AbstractContextManager[object] | None = None
) -> None:
    """Run a replica on a batch; where numbers are not finite, the error says where that began.

    Parameters
    ----------
    model
        Any network; unchanged.
    batch
        A batch of inputs in any form that the model takes.
    within
        Entered for the run, but not for a second one that looks for the origin.
    """
    with traced(model, partial(_run, model, batch)), within or nullcontext():
        _run(model, batch)


def _run(model: nn.Module, batch: Batch) -> None:
    call(replica(model), batch)


def _twin(module: Module, done: dict[int, nn.Module]) -> Module:
    if id(module) in done:
        return done[id(module)]  # type: ignore[return-value]
    # Not by the class, which may make a class of its own for every module, as torch.fx does.
    twin: Module = object.__new__(type(module))
    done[id(module)] = twin
    for name, value in vars(module).items():
        if name == "_modules":
            value = {k: part and _twin(part, done) for k, part in value.items()}
        elif name not in _SHARED and type(value) in _CONTAINERS:
            value = copy.copy(value)
        twin.__dict__[name] = value
    return twin
