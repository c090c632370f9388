"""The check of integer arguments."""

from __future__ import annotations

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
