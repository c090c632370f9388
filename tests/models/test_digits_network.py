"""The digits network: trained once, cached, and leaving the caller's state alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from sparsemend import data
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.models import create, digits, load


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache folder that holds the fully trained network."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSEMEND_CACHE", str(folder))
        digits.pretrained(progress=False)
        yield folder


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and training that takes no time; returns the cache file."""
    train = digits.train
    monkeypatch.setattr(digits, "train", lambda **_: train(epochs=1, progress=False))
    monkeypatch.setenv("SPARSEMEND_CACHE", str(tmp_path / "cache"))
    return digits.cache_path()


def test_accuracy(trained: Path) -> None:
    loaded = load("digits")
    images = data.load("digits", mean=loaded.mean, std=loaded.std)
    inputs, labels = images.test()
    with torch.no_grad():
        predicted = loaded.model(inputs).argmax(dim=1)
    accuracy = 100 * (predicted == labels).double().mean().item()
    assert accuracy >= 97.5
    assert accuracy == pytest.approx(float(loaded.metadata["top1_test"]), abs=0.01)
    assert [file.name for file in trained.iterdir()] == ["digits.safetensors"]


def test_cached_file_loads_as_any_weights(trained: Path) -> None:
    again = load("digits", trained / "digits.safetensors")
    torch.testing.assert_close(again.model.state_dict(), load("digits").model.state_dict())


def test_training_is_reproducible_whatever_the_seed() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        states.append(digits.train(epochs=1, progress=False)[0].state_dict())
    torch.testing.assert_close(*states, rtol=0, atol=0)


def test_random_state_and_threads_are_left_alone(quick: Path) -> None:
    torch.manual_seed(3)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    for _ in range(2):  # trained, then cached
        with torch.inference_mode():
            load("digits", progress=False)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.get_num_threads() == threads
    assert quick.is_file()


def test_second_call_reads_the_cache(quick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = digits.pretrained()
    stamp = quick.stat().st_mtime_ns
    monkeypatch.setattr(digits, "train", None)
    torch.testing.assert_close(digits.pretrained().state_dict(), first.state_dict())
    assert quick.stat().st_mtime_ns == stamp


def test_refresh_trains_anew(quick: Path) -> None:
    digits.pretrained()
    os.utime(quick, ns=(0, 0))
    digits.pretrained(refresh=True)
    assert quick.stat().st_mtime_ns > 0


def test_unusable_cache_is_replaced(quick: Path) -> None:
    digits.pretrained()
    whole = quick.read_bytes()
    other = create("digits", width=4)
    for content in (b"", whole[: len(whole) // 2], whole.replace(b'"recipe":"1"', b'"recipe":"0"')):
        quick.write_bytes(content)
        digits.pretrained()
        assert len(quick.read_bytes()) == len(whole)
    digits.save_weights(quick, other.state_dict(), {"recipe": digits.RECIPE})
    assert digits.pretrained().conv1.out_channels == 16


def test_cache_that_cannot_be_written_is_only_a_warning(quick: Path) -> None:
    quick.parent.write_text("a file where the folder should be")
    with pytest.warns(SparsemendWarning, match="cannot be cached .*SPARSEMEND_CACHE"):
        model = digits.pretrained()
    assert not model.training


def test_cache_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("SPARSEMEND_CACHE", raising=False)
    assert digits.cache_path() == Path("/home/someone/.cache/sparsemend/digits.safetensors")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert digits.cache_path() == Path("/caches/sparsemend/digits.safetensors")
    monkeypatch.setenv("SPARSEMEND_CACHE", "/own")
    assert digits.cache_path() == Path("/own/digits.safetensors")


def test_other_sizes_need_weights() -> None:
    with pytest.raises(SparsemendError, match="'digits' is trained in one size"):
        load("digits", num_classes=4)
    with pytest.raises(SparsemendError, match="'digits' is trained in one size"):
        load("digits", width=8)
