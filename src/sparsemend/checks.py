"""Checks of arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from sparsemend.errors import SparsemendError

_MOST = 2**63 - 1  # what torch's generators and SQLite can hold


def check_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int; raise ``SparsemendError`` if it is none or out of range."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise SparsemendError(f"{name} is out of range", value, f"an integer of at least {minimum}")
    if value > _MOST:
        raise SparsemendError(f"{name} is out of range", value, f"an integer of at most {_MOST}")
    return int(value)


def takes_keyword(function: Callable[..., object], name: str) -> bool:
    """Whether a function can be called with a keyword of this name, as far as it can be seen."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # built-ins without a signature
        return True
    return any(
        parameter.kind is parameter.VAR_KEYWORD
        or (
            parameter.name == name
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        )
        for parameter in parameters
    )
