"""What bad input is tried on, and what it must leave as it was."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.faults.networks import small_network
from torch import nn

import sparsemend as sm

HOOKS = [name for name in vars(nn.Module()) if "hooks" in name]


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Arguments that are accepted; shared by all tests, and not to be changed by any."""
    torch.manual_seed(0)
    x = torch.randn(24, 1, 8, 8)
    model, batches = small_network(), list(x.split(8))
    calibration = sm.calibrate(model, batches)
    diagnosis = sm.diagnose(model, calibration)
    allocation = sm.allocate(model, 0.5, "rr", diagnosis=diagnosis)
    folder = tmp_path_factory.mktemp("good")
    pruned = sm.prune(model, allocation)
    sm.save_checkpoint(pruned, folder / "c.safetensors", allocation)
    diagnosis.save(folder / "d.json")
    sweep = sm.sweep(model, batches, 0.5, rules="erk", repairs="none", store=folder / "s.sqlite")
    return SimpleNamespace(
        model=model,
        pruned=pruned,
        batches=batches,
        labelled=[(batch, torch.arange(8) % 5) for batch in batches],
        calibration=calibration,
        diagnosis=diagnosis,
        allocation=allocation,
        result=sm.compress(model, batches, 0.5, "erk", None, "none"),
        sweep=sweep,
        images=sm.data.load("digits"),
        folder=folder,
    )  # fmt: skip


def state(model: nn.Module) -> dict[str, Any]:
    """All that a caller may notice of a network."""
    return {
        "tensors": {key: (id(t), t.clone()) for key, t in model.state_dict(keep_vars=True).items()},
        "gradients": {name: p.requires_grad for name, p in model.named_parameters()},
        "modes": {name: module.training for name, module in model.named_modules()},
        "hooks": {
            name: [list(getattr(module, hooks)) for hooks in HOOKS]
            for name, module in model.named_modules()
        },
    }


def contents(folder: Path) -> dict[str, Any]:
    """Every file, but what Python itself keeps of modules that it has read."""
    return {
        str(path): (path.lstat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


@contextmanager
def nothing_changes(*models: nn.Module, folders: tuple[Path, ...]) -> Iterator[None]:
    """Within, nothing happens to networks, files and random numbers."""
    before = [state(model) for model in models], [contents(folder) for folder in folders]
    numbers = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    after = [state(model) for model in models]
    for then, now in zip(before[0], after, strict=True):
        for key, (identity, value) in then.pop("tensors").items():
            assert now["tensors"][key][0] == identity or not key
            assert torch.equal(now["tensors"][key][1], value), key
        now.pop("tensors")
        assert now == then
    assert [contents(folder) for folder in folders] == before[1]
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert repr(np.random.get_state()) == repr(numbers[1])
    assert random.getstate() == numbers[2]


@pytest.fixture
def unchanged(
    good: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., AbstractContextManager[None]]:
    """Within, nothing happens to what is shared, to an empty folder, nor to random numbers."""
    monkeypatch.chdir(tmp_path)
    networks = (good.model, good.pruned)
    return lambda *models: nothing_changes(*networks, *models, folders=(tmp_path, good.folder))
