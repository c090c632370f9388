"""The check of integer arguments."""

from __future__ import annotations

from typing import Any

import numpy as np

from sparsemend.errors import SparsemendError


def check_int(name: str, value: Any, *, minimum: int = 1) -> int:
    """Return ``value`` as an int; raise ``SparsemendError`` if it is none or below the minimum."""
    is_integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not is_integer or value < minimum:
        raise SparsemendError(f"{name} is out of range", value, f"an integer of at least {minimum}")
    return int(value)
