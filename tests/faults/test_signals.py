"""Ctrl-C while worker processes compute: nothing is lost, nothing is left."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner

from sparsemend.cli import app

NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
"""
SWEEP = (
    *("sweep", "--model", "net.py:make", "--data", "digits", "--sparsity", "0.50:0.99:0.01"),
    *("--rule", "erk", "--rule", "lamp", "--repair", "variance"),
    *("--calibration-size", "64", "--heldout-size", "32", "--limit", "50", "--store", "s.sqlite"),
)
CELLS = 100


def stored(path: Path) -> int:
    """How many cells are in a store that is sound."""
    if not path.exists() or not path.stat().st_size:
        return 0
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        (count,) = connection.execute("SELECT count(*) FROM records").fetchone()
        return count


def members(group: int) -> list[str]:
    """Processes of a process group that are still there."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, its_group = entry.read_text().rpartition(")")[2].split()[:3]
        except OSError:  # it has ended
            continue
        if int(its_group) == group and state != "Z":
            found.append(entry.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks processes up in /proc")
def test_a_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NETWORK)
    driver = subprocess.Popen(
        [sys.executable, "-m", "sparsemend", *SWEEP, "--workers", "2"],
        cwd=tmp_path, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    store = tmp_path / "s.sqlite"
    while not stored(store) and driver.poll() is None:
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    out, error = driver.communicate()
    assert (driver.returncode, out) == (130, "")
    assert error.endswith("interrupted; finished cells are in the store, if there is one\n")
    assert "Traceback" not in error
    end = time.monotonic() + 60  # Python's own helper follows when it sees that all have gone
    while members(driver.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert members(driver.pid) == []
    done = stored(store)
    assert 0 < done < CELLS
    assert {path.name for path in tmp_path.iterdir()} - {"__pycache__"} == {"net.py", "s.sqlite"}
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [*SWEEP, "--json"])
    assert result.exit_code == 0
    assert json.loads(result.stdout)["computed"] == CELLS - done
    assert stored(store) == CELLS
