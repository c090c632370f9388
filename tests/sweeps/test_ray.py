import os
import sys

import pytest
import torch
from tests.sweeps.mortal import ALWAYS, FIRST, mortal_network
from tests.sweeps.samples import make_cell, make_settings, table
from torch import nn

from sparsemend import SparsemendError
from sparsemend.sweeps import Network, make_grid
from sparsemend.sweeps import ray as module
from sparsemend.sweeps.driver import run_sweep
from sparsemend.sweeps.ray import on_ray
from sparsemend.sweeps.records import Task


def test_without_ray_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(SparsemendError, match=r"pip install 'sparsemend\[ray\]'"):
        on_ray("local")


@pytest.fixture
def ray(monkeypatch):
    ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    yield ray
    assert not ray.is_initialized()


def test_a_worker_that_dies_loses_nothing_and_the_table_is_the_same(ray, tmp_path):  # noqa: ARG001
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    network = mortal_network(tmp_path)
    grid = make_grid([0.5, 0.7], ["erk", "rr"], None, ["batchnorm", "variance"], [0, FIRST])
    result = run_sweep([network], grid, "sequential", tmp_path / "s.sqlite", on_ray("local"))
    alone = run_sweep([network], grid, "sequential", None)
    torch.set_num_threads(before)
    assert result.failures == ()
    assert table(result.records) == table(alone.records)
    assert len(list(tmp_path.glob(f"{FIRST}-*-*"))) >= 2  # the first died, another drew again


def test_a_cell_that_kills_every_worker_fails_alone(ray, tmp_path, monkeypatch):  # noqa: ARG001
    monkeypatch.setattr(module, "RETRIES", 1)
    network = mortal_network(tmp_path)
    grid = make_grid(0.5, "erk", None, "variance", [0, ALWAYS])
    result = run_sweep([network], grid, "sequential", None, on_ray("local"))
    assert [record.cell.seed for record in result.records] == [0]
    (failure,) = result.failures
    assert failure.cell.seed == ALWAYS
    assert "Ray gave up on it (WorkerCrashedError)" in failure.error


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1", "nowhere"])
def test_a_cluster_that_is_not_there(ray, tmp_path, address):  # noqa: ARG001
    network = mortal_network(tmp_path)
    grid = make_grid(0.5, "erk", None, "variance")
    with pytest.raises(SparsemendError, match="there is no Ray cluster that answers"):
        run_sweep([network], grid, "sequential", None, on_ray(address))


class NeverThere:
    """Can be sent, but not read."""

    def __reduce__(self):
        return (os.getpid, ("one argument too many",))


def test_what_cannot_be_read_in_a_worker_ends_the_sweep(ray):  # noqa: ARG001
    network = Network("n", nn.Sequential(nn.Linear(3, 2)), NeverThere())
    task = Task(make_cell(), make_settings())
    with pytest.raises(SparsemendError, match="cannot be read in another process"):
        next(on_ray("local")([network], [task]))
