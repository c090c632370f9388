"""Packages that only some formats need."""

from __future__ import annotations

import importlib
from typing import Any

from sparsemend.errors import SparsemendError


def require(module: str, *, purpose: str) -> Any:
    """Import and return a module of the ``images`` extra.

    Raises
    ------
    SparsemendError
        If it is not installed; says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise SparsemendError(
            f"{purpose} needs the package {module.partition('.')[0]!r}, which is not installed",
            fix="pip install 'sparsemend[images]'",
        ) from error
