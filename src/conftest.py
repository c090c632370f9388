"""What the examples in docstrings may use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sparsemend as sm


@pytest.fixture(scope="session")
def example_names(digits: Any) -> dict[str, Any]:
    """``sm``; a trained ``model``, its ``images``, unlabelled ``batches`` and a ``diagnosis``."""
    calibration = sm.calibrate(digits.model, digits.calibration, progress=False)
    loaded = sm.models.load("digits")
    return {
        "sm": sm,
        "model": digits.model,
        "images": sm.data.load("digits", mean=loaded.mean, std=loaded.std),
        "batches": digits.calibration,
        "diagnosis": sm.diagnose(digits.model, calibration, progress=False),
    }


@pytest.fixture(autouse=True)
def example(
    example_names: dict[str, Any],
    doctest_namespace: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Examples write into a folder of their own."""
    doctest_namespace.update(example_names)
    monkeypatch.chdir(tmp_path)
