"""A small sweep on the digits network."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

import sparsemend as sm
from sparsemend.data import ImageData

# Property tests here are timed by nobody: a busy machine must not fail them.
settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(scope="session")
def images(digits_cache: Path) -> ImageData:
    loaded = sm.models.load("digits", digits_cache / "digits.safetensors")
    return sm.data.load("digits", mean=loaded.mean, std=loaded.std)
