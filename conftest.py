"""Fixtures that all tests and examples share."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from hypothesis import register_random, settings
from torch import Tensor, nn

import sparsemend as sm

# Two workers on two cores: one thread each, and so the programs that tests start. A plugin may
# have loaded OpenMP by now, which reads the variable only then.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# A shell that runs the tests in the background ignores interrupts, and so would what tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Property tests are timed by nobody: a busy machine must not fail them. They try the same examples
# in every run, so that what fails is due to a change; the fuzz is what looks for new ones.
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fuzz-seconds", type=float, default=15.0, help="how long random networks are tried"
    )
    parser.addoption("--fuzz-seed", type=int, help="where they begin; default the day")


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
        trained_digits(folder, tmp_path_factory)
        yield folder


def trained_digits(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Put the trained network into a cache folder; of several workers one trains it for all."""
    name = "digits.safetensors"
    common = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        common = common.parent
    with FileLock(common / "digits.lock"):
        if not (common / name).exists():
            sm.models.load("digits", progress=False)
            shutil.copy(folder / name, common / name)
    shutil.copy(common / name, folder / name)


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
