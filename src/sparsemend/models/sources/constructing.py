"""Calling what the user named, with one clear error whatever goes wrong in it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from sparsemend.checks import takes_keyword
from sparsemend.errors import RAISED, SparsemendError, raised_by


def construct(factory: Any, arguments: Mapping[str, Any], *, spec: str) -> nn.Module:
    """Call a factory and check that it returns a network; of a network that there is, a copy.

    Raises
    ------
    SparsemendError
        If it is not callable, does not take the arguments, fails, or returns something else.
    """
    if isinstance(factory, nn.Module):
        if arguments:
            raise SparsemendError(
                f"model {spec!r} is a network, which takes no arguments",
                dict(arguments),
                fix="leave them out, or name a function or class",
            )
        return copy.deepcopy(factory)
    if not callable(factory):
        raise SparsemendError(
            f"model {spec!r} is not callable",
            factory,
            "a module, or a function or class giving one",
        )
    for name, value in arguments.items():
        if not takes_keyword(factory, name):
            raise SparsemendError(f"model {spec!r} takes no {name}", value, fix=f"leave {name} out")
    try:
        network = factory(**arguments)
    # What is not the library's may fail in any way, or be a program that ends itself.
    except RAISED as error:
        raise SparsemendError(
            f"model {spec!r} failed when called with {dict(arguments)}: {raised_by(error)}",
            fix="pass what else it needs as --model-arg key=value (arguments={...} in Python)",
        ) from error
    if not isinstance(network, nn.Module):
        raise SparsemendError(
            f"model {spec!r} returned no module", type(network).__name__, "a torch.nn.Module"
        )
    return network


def first_line(error: BaseException) -> str:
    """What an error says, without the pages that some libraries add."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else ""
