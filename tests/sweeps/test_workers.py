import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from tests.sweeps.mortal import ALWAYS, FIRST, mortal_network
from tests.sweeps.samples import SIZES, make_cell, make_settings, table
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.sweeps import Failure, GivenInputs, Network, make_grid
from sparsemend.sweeps import workers as module
from sparsemend.sweeps.driver import run_sweep
from sparsemend.sweeps.records import Task
from sparsemend.sweeps.workers import _Queue, on_workers

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def one_thread():
    """Sums depend on the number of threads, and workers have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_worker_that_dies_costs_its_cell_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    network = mortal_network(tmp_path)
    grid = make_grid([0.5, 0.7], "rr", None, "variance", [0, FIRST, ALWAYS, 3])
    store = tmp_path / "s.sqlite"
    result = run_sweep([network], grid, "sequential", store, on_workers(2))
    alone = run_sweep([network], grid, "sequential", None)
    assert table(result.records) == table([r for r in alone.records if r.cell.seed != ALWAYS])
    assert {failure.cell.seed for failure in result.failures} == {ALWAYS}
    assert len(result.failures) == 2
    assert {failure.error for failure in result.failures} == {"its process died 2 times"}
    deaths = Counter(int(file.name.split("-")[0]) for file in tmp_path.glob("*-*-*"))
    assert deaths[FIRST] >= 2  # it was drawn again
    assert deaths[ALWAYS] == 2 * module.ATTEMPTS


def test_two_workers_give_the_table_of_one(digits, images):
    grid = {"sparsities": [0.8, 0.9], "rules": ["rr", "global"], "seeds": [0, 1]}
    repairs = ["batchnorm", "affine"]
    one, two = (
        sm.sweep(digits.model, images, repairs=repairs, workers=workers, **grid, **SIZES)
        for workers in (1, 2)
    )
    assert len(two.records) == 16
    assert table(two.records) == table(one.records)


def test_functions_and_classes_go_by_value():
    class Local(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 3)

        def forward(self, x):
            return self.layer(x)

    inputs = GivenInputs(lambda seed: list(torch.full((3, 4, 4), float(seed))))
    grid = make_grid(0.5, "global", None, "none", [1, 2])
    result = run_sweep([Network("n", Local(), inputs)], grid, "sequential", None, on_workers(2))
    assert len(result.records) == 2


def test_what_cannot_be_sent_is_refused():
    inputs = GivenInputs([torch.ones(2, 3)] * 2, labelled=threading.Lock())
    network = Network("n", nn.Sequential(nn.Linear(3, 2)), inputs)
    task = Task(make_cell(), make_settings())
    with pytest.raises(SparsemendError, match="cannot be sent to other processes"):
        next(on_workers(1)([network], [task]))


class NeverThere:
    """Can be sent, but not read."""

    def __reduce__(self):
        return (os.getpid, ("one argument too many",))


def test_what_cannot_be_read_in_a_worker_ends_the_sweep():
    network = Network("n", nn.Sequential(nn.Linear(3, 2)), NeverThere())
    task = Task(make_cell(), make_settings())
    with pytest.raises(SparsemendError, match=r"cannot be read in another process \(TypeError"):
        next(on_workers(1)([network], [task]))


class Deadly:
    """Kills the process that reads it."""

    def __reduce__(self):
        return (os.abort, ())


def test_workers_that_never_start(monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    network = Network("n", nn.Sequential(nn.Linear(3, 2)), Deadly())
    task = Task(make_cell(), make_settings())
    with pytest.raises(SparsemendError, match="worker processes die before they have begun"):
        list(on_workers(1)([network], [task]))


DRIVER = """
import sys
from pathlib import Path
from sparsemend.sweeps import make_grid
from sparsemend.sweeps.driver import run_sweep
from sparsemend.sweeps.workers import on_workers
from tests.sweeps.mortal import mortal_network
network = mortal_network(Path(sys.argv[1]))
grid = make_grid("0.10:0.89:0.01", "rr", None, ["batchnorm", "variance"], [0, 5])
run_sweep([network], grid, "sequential", None, on_workers(2))
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
def test_workers_end_with_a_driver_that_was_killed(tmp_path):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, tmp_path], cwd=ROOT)
    try:
        wait_until(lambda: len(list(tmp_path.iterdir())) == 2)
        workers = [int(file.name.split("-")[2]) for file in tmp_path.iterdir()]
        assert all(map(is_alive, workers))
    finally:
        driver.send_signal(signal.SIGKILL)
        driver.wait()
    wait_until(lambda: not any(map(is_alive, workers)))


def wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.05)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("count", [0, -1, 1.5, "2"])
def test_numbers_of_workers_that_cannot_be(count):
    with pytest.raises(SparsemendError, match="workers is out of range"):
        on_workers(count)


def tasks_of(groups):
    return [
        Task(make_cell(network=network, seed=seed, sparsity=i / 100), make_settings())
        for network, seed, count in groups
        for i in range(count)
    ]


def group_of(task):
    return (task.cell.network, task.cell.seed)


def test_cells_that_share_work_stay_with_their_worker():
    tasks = tasks_of([("a", 0, 4), ("a", 1, 4), ("b", 0, 4)])
    queue, at = _Queue(tasks), {"one": [], "two": []}
    for _ in range(6):
        for worker, taken in at.items():
            taken.append(queue.take(worker))
    assert queue.take("one") is queue.take("two") is None
    assert sorted(task for taken in at.values() for task in map(tasks.index, taken)) == list(
        range(12)
    )
    changes = {w: [group_of(t) for t in taken] for w, taken in at.items()}
    assert changes["one"] == [("a", 0)] * 4 + [("b", 0)] * 2
    assert changes["two"] == [("a", 1)] * 4 + [("b", 0)] * 2


def test_the_largest_group_is_shared_when_there_is_no_other():
    queue = _Queue(tasks_of([("a", 0, 9), ("a", 1, 1)]))
    assert group_of(queue.take("one")) == ("a", 0)
    assert group_of(queue.take("two")) == ("a", 1)
    assert group_of(queue.take("two")) == ("a", 0)
    assert [queue.take("two").cell.sparsity for _ in range(3)] == [0.02, 0.03, 0.04]


def test_a_cell_that_killed_its_worker_is_tried_again_first():
    queue = _Queue(tasks_of([("a", 0, 3)]))
    task = queue.take("one")
    for _ in range(module.ATTEMPTS - 1):
        assert queue.give_back(task) is None
        assert queue.take("one") == task
    failure = queue.give_back(task)
    assert isinstance(failure, Failure)
    assert failure.cell == task.cell
    assert queue.take("one") != task
