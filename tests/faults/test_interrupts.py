"""An interrupt at any moment: counted in calls of functions, so that no clock decides which."""

from __future__ import annotations

import copy
import inspect
import signal
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import pytest
from tests.sweeps.samples import table

import sparsemend as sm
from sparsemend.search import auto
from sparsemend.sweeps.bench import Bench

SOURCE = str(Path(sm.__file__).parent)
MOMENTS = 20


def interrupted_at(moment: float, work: Callable[[], object]) -> int:
    """Do some work with an interrupt at a call of ours; returns the number of calls until then."""
    calls = 0

    def count(frame: FrameType, event: str, argument: Any) -> None:  # noqa: ARG001
        nonlocal calls
        code = frame.f_code
        # Python drops what is raised in a generator that it is about to forget.
        if event != "call" or code.co_flags & inspect.CO_GENERATOR:
            return
        if not code.co_filename.startswith(SOURCE):
            return
        calls += 1
        if calls == moment:
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def moments(work: Callable[[], object]) -> list[int]:
    """Some calls of ours while the work is done, spread over it."""
    work()  # what is kept for the next time is there
    total = interrupted_at(-1, work)
    assert total > MOMENTS
    return [1 + i * total // MOMENTS for i in range(MOMENTS)]


def sweep(good: SimpleNamespace, store: Path | None) -> sm.SweepResult:
    return sm.sweep(
        good.model, good.batches, [0.5, 0.8], rules=["erk", "rr"], repairs="variance+batchnorm",
        store=store,
    )  # fmt: skip


def test_a_sweep_goes_on_where_it_was(good, tmp_path):
    whole = table(sweep(good, None).records)
    threads, found = threading.active_count(), []
    for moment in moments(lambda: sweep(good, None)):
        store = tmp_path / f"{moment}.sqlite"
        with pytest.raises(KeyboardInterrupt):
            interrupted_at(moment, lambda store=store: sweep(good, store))
        assert threading.active_count() == threads
        assert {path.suffix for path in tmp_path.iterdir()} <= {".sqlite"}  # no lock, no journal
        done = ()
        if store.exists():
            with closing(sqlite3.connect(store)) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            done = sm.SweepResult.load(store).records if store.stat().st_size else ()
        assert all(row in whole for row in table(done))
        if len(done) not in found:
            finished = sweep(good, store)
            assert table(finished.records) == whole
            assert finished.computed == len(whole) - len(done)
        found.append(len(done))
    assert found == sorted(found)
    assert set(found) > {0, len(whole) - 1}


WORK = {
    "compress": lambda g, model: sm.compress(
        model, g.batches, 0.8, "erk", None, "reconstruct+batchnorm", inplace=True
    ),
    "prune": lambda g, model: sm.prune(model, g.allocation, inplace=True),
    "repair": lambda g, model: sm.repair(model, g.model, g.batches, "affine", inplace=True),
    "recalibrate": lambda g, model: sm.recalibrate(model, g.batches),
    "ema": lambda g, model: sm.recalibrate(model, g.batches, "ema"),
    "load_checkpoint": lambda g, model: sm.load_checkpoint(model, g.folder / "c.safetensors"),
    "calibrate": lambda g, model: sm.calibrate(model, g.batches),
}


@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
@pytest.mark.parametrize("name", WORK)
def test_a_network_is_as_it_was(good, unchanged, name):
    threads = threading.active_count()
    for moment in moments(lambda: WORK[name](good, copy.deepcopy(good.pruned))):
        model = copy.deepcopy(good.pruned)
        with unchanged(model), pytest.raises(KeyboardInterrupt):
            interrupted_at(moment, lambda model=model: WORK[name](good, model))
        assert threading.active_count() == threads


def test_half_a_search_is_no_record(good, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(auto._Search, "_mix", interrupt)
    store = tmp_path / "s.sqlite"
    with pytest.raises(KeyboardInterrupt):
        sm.sweep(good.model, good.batches, 0.5, rules="auto", repairs="variance", store=store)
    assert sm.SweepResult.load(store).records == ()


def test_an_interrupt_that_was_dropped_is_raised_before_the_cell_is_kept(
    good, tmp_path, monkeypatch
):
    compute, seen = Bench.compute, []

    def dropping(bench, task):
        seen.append(task)
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        return compute(bench, task)

    monkeypatch.setattr(Bench, "compute", dropping)
    with pytest.raises(KeyboardInterrupt):
        sweep(good, tmp_path / "s.sqlite")
    assert len(seen) == 1
    assert sm.SweepResult.load(tmp_path / "s.sqlite").records == ()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
