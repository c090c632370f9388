"""A small sweep on the digits network."""

from __future__ import annotations

from pathlib import Path

import pytest

import sparsemend as sm
from sparsemend.data import DataSet


@pytest.fixture(scope="session")
def images(digits_cache: Path) -> DataSet:
    loaded = sm.models.load("digits", digits_cache / "digits.safetensors")
    return sm.data.load("digits", mean=loaded.mean, std=loaded.std)
