"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real networks and images beside the repository; skips where it is absent."""
    default = Path(__file__).parents[1].parent / "shared" / "data"
    path = Path(os.environ.get("SPARSEMEND_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real networks and images in {path}")
    return path
