"""Fixtures that all tests and examples share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import register_random
from torch import Tensor, nn

import sparsemend as sm


class TorchRandom:
    """PyTorch's global generator, as property tests seed it: what fails can be repeated."""

    seed = staticmethod(torch.manual_seed)
    getstate = staticmethod(torch.get_rng_state)
    setstate = staticmethod(torch.set_rng_state)


TORCH_RANDOM = TorchRandom()  # only a weak reference to it is registered
register_random(TORCH_RANDOM)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real networks and images beside the repository; skips where it is absent."""
    default = Path(__file__).parents[1] / "shared" / "data"
    path = Path(os.environ.get("SPARSEMEND_SHARED_DATA", default))
    if not path.is_dir():
        pytest.skip(f"no real networks and images in {path}")
    return path


@dataclass(frozen=True)
class Digits:
    """The demo's trained network and its data; shared by all tests, so not to be changed."""

    model: nn.Module
    calibration: list[Tensor]
    heldout: list[Tensor]
    test: list[tuple[Tensor, Tensor]]


@pytest.fixture(scope="session")
def digits_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The cache folder of this session, with the trained digits network in it."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMEND_CACHE", str(folder))
        sm.models.load("digits", progress=False)
        yield folder


@pytest.fixture(scope="session")
def digits(digits_cache: Path) -> Digits:
    loaded = sm.models.load("digits", digits_cache / "digits.safetensors")
    data = sm.data.load("digits", mean=loaded.mean, std=loaded.std)
    return Digits(
        loaded.model,
        list(data.calibration(160, seed=0).split(64)),
        list(data.heldout(128, calibration_size=160, seed=0).split(64)),
        list(data.test_batches(450)),
    )
