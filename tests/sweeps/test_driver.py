import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.sweeps.samples import SIZES, table

from sparsemend import SparsemendError
from sparsemend.progress import announcing
from sparsemend.sweeps import DrawnInputs, Failure, Network, make_grid
from sparsemend.sweeps.bench import in_process
from sparsemend.sweeps.driver import preview_sweep, run_sweep
from sparsemend.sweeps.plan import Estimate
from sparsemend.sweeps.store import open_store

ROOT = Path(__file__).parents[2]
GRID = make_grid([0.8, 0.9], ["erk", "rr"], None, ["mean"], [0, 1])


@pytest.fixture
def networks(digits, images):
    return [Network("digits", digits.model, DrawnInputs(images, **SIZES))]


class Counting:
    """Computes in this process, notes what, and stops after some cells."""

    def __init__(self, stop_after=None):
        self.tasks = []
        self.stop_after = stop_after
        self.closed = False

    def __call__(self, networks, tasks):
        try:
            for outcome in in_process(networks, tasks):
                if len(self.tasks) == self.stop_after:
                    raise KeyboardInterrupt
                self.tasks.append((outcome.cell, outcome.settings))
                yield outcome
        finally:
            self.closed = True


def test_what_is_in_the_store_is_not_computed_again(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    first = Counting(stop_after=3)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(networks, GRID, "sequential", path, first)
    assert len(first.tasks) == 3
    assert first.closed
    second = Counting()
    result = run_sweep(networks, GRID, "sequential", path, second)
    assert len(second.tasks) == result.computed == 5
    assert not set(first.tasks) & set(second.tasks)
    third = Counting()
    again = run_sweep(networks, GRID, "sequential", path, third)
    assert third.tasks == []
    assert again.computed == 0
    assert again.records == result.records
    whole = run_sweep(networks, GRID, "sequential", None)
    assert table(result.records) == table(whole.records)


def test_a_larger_grid_computes_what_is_new(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    run_sweep(networks, GRID, "sequential", path)
    larger = make_grid([0.8, 0.85, 0.9], ["erk", "rr"], None, ["mean"], [0, 1])
    result = run_sweep(networks, larger, "sequential", path)
    assert result.computed == 4
    assert [record.cell.sparsity for record in result.records[:3]] == [0.8, 0.85, 0.9]
    # A smaller one gives its own cells alone.
    part = run_sweep(networks, make_grid(0.8, "rr", None, "mean"), "sequential", path)
    assert (part.computed, len(part.records)) == (0, 1)


def test_other_sizes_are_other_cells(digits, images, networks, tmp_path):
    path = tmp_path / "s.sqlite"
    run_sweep(networks, GRID, "sequential", path)
    more = [Network("digits", digits.model, DrawnInputs(images, **(SIZES | {"limit": 50})))]
    assert run_sweep(more, GRID, "sequential", path).computed == 8
    assert run_sweep(networks, GRID, "one-shot", path).computed == 8


def test_failures_do_not_stop_the_sweep_and_are_tried_again(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    grid = make_grid([0.9, 0.9999, 0.95], ["erk"], None, ["mean"])
    for _ in range(2):
        counting = Counting()
        result = run_sweep(networks, grid, "sequential", path, counting)
        assert [record.cell.sparsity for record in result.records] == [0.9, 0.95]
        (failure,) = result.failures
        assert failure.cell.sparsity == 0.9999
        assert "the largest feasible sparsity" in failure.error
        assert any(cell.sparsity == 0.9999 for cell, _ in counting.tasks)
    assert len(counting.tasks) == 1
    with open_store(path) as store:
        assert [f.error for f in store.failures().values()] == [failure.error]


def test_a_failure_may_be_cured(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    grid = make_grid(0.9, "erk", None, "mean")

    def failing(_, tasks):
        yield from (Failure(task.cell, "out of luck", task.settings) for task in tasks)

    assert len(run_sweep(networks, grid, "sequential", path, failing).failures) == 1
    result = run_sweep(networks, grid, "sequential", path)
    assert (len(result.records), result.failures) == (1, ())
    with open_store(path) as store:
        assert store.failures() == {}


def test_two_drivers_do_not_share_a_store(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    counting = Counting()
    with open_store(path):
        with pytest.raises(SparsemendError, match="another sweep is writing to this store"):
            run_sweep(networks, GRID, "sequential", path, counting)
        assert preview_sweep(networks, GRID, "sequential", path).pending  # may look
    assert counting.tasks == []


def test_a_preview_computes_and_writes_nothing(networks, tmp_path):
    path = tmp_path / "s.sqlite"
    seen = preview_sweep(networks, GRID, "sequential", path)
    assert (seen.records, len(seen.pending), seen.estimate) == ((), 8, Estimate(0.0, 8))
    assert list(tmp_path.iterdir()) == []
    part = run_sweep(networks, make_grid(0.8, "erk", None, "mean", [0, 1]), "sequential", path)
    before = path.read_bytes()
    seen = preview_sweep(networks, GRID, "sequential", path)
    assert seen.records == part.records
    assert len(seen.pending) == 6
    assert seen.estimate.unknown == 0
    assert seen.estimate.seconds > 0
    assert path.read_bytes() == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks to be quick")
def test_killed_at_any_moment_it_resumes_without_losing_or_repeating(digits_cache, tmp_path):
    kills = 20
    environment = {**os.environ, "SPARSEMEND_CACHE": str(digits_cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.sweeps.kill_loop", str(tmp_path), str(kills)],
        capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["interrupted"] >= kills / 2  # else there was little to survive
    assert found["done_by_killed_runs"] > 0
    assert set(found["sound"]) == {"ok"}
    assert found["repeated"] == []
    assert found["rows"] == found["cells"]
    assert found["computed_at_last"] == found["cells"] - found["done_by_killed_runs"]
    assert found["same"]
    assert "killed.sqlite.lock" not in found["files"]


def test_it_says_how_long_it_will_take_once_every_kind_is_known(networks, monkeypatch, capsys):
    grid = make_grid([0.8, 0.9], ["erk", "rr"], None, ["none", "mean"], [0, 1])
    with announcing():
        run_sweep(networks, grid, "sequential", None)
        assert capsys.readouterr().err == ""  # it takes no time worth a word
        monkeypatch.setattr("sparsemend.sweeps.driver._LONG", 0.0)
        run_sweep(networks, grid, "sequential", None)
    assert capsys.readouterr().err.startswith("sweep of digits: 13 cells to do, about ")


def test_it_says_so_at_once_where_the_store_knows(networks, monkeypatch, capsys, tmp_path):
    path = tmp_path / "s.sqlite"
    run_sweep(networks, make_grid(0.8, "erk", None, "mean"), "sequential", path)
    monkeypatch.setattr("sparsemend.sweeps.driver._LONG", 0.0)

    def compute(_, tasks):
        assert capsys.readouterr().err.startswith("sweep of digits: 7 cells to do, about ")
        yield from in_process(networks, tasks)

    with announcing():
        assert run_sweep(networks, GRID, "sequential", path, compute).computed == 7


def test_a_store_keeps_the_order_of_the_grid(networks, tmp_path):
    path = tmp_path / "s.sqlite"

    def backwards(networks, tasks):
        yield from in_process(networks, tasks[::-1])

    kept = []
    for grid in (GRID, make_grid([0.7, 0.8], ["erk", "rr"], None, ["none", "mean"], [0, 1])):
        result = run_sweep(networks, grid, "sequential", path, backwards)
        kept += [record.cell for record in result.records if record.cell not in kept]
        with open_store(path) as store:
            assert [record.cell for record in store.records().values()] == kept
