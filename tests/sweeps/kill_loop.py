"""Kills a sweep at random moments, again and again, and says what came of it as JSON.

python -m tests.sweeps.kill_loop FOLDER KILLS: a program of its own, with one thread, because it
forks: a fresh interpreter for every run would take most of the time to import PyTorch.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import sys
import time
from pathlib import Path

import torch
from tests.sweeps.samples import SIZES, table

import sparsemend as sm
from sparsemend.sweeps.bench import Bench
from sparsemend.sweeps.records import Task

GRID = {
    "sparsities": [0.8, 0.9, 0.95],
    "rules": ["erk", "lamp"],
    "repairs": ["batchnorm", "none"],
    "seeds": [0, 1],
}


def main(folder: Path, kills: int) -> None:
    torch.set_num_threads(1)
    loaded = sm.models.load("digits")
    images = sm.data.load("digits", mean=loaded.mean, std=loaded.std)
    log = folder / "log"

    def sweep(store: Path) -> sm.SweepResult:
        return sm.sweep({"digits": loaded.model}, images, store=store, **GRID, **SIZES)

    started = time.perf_counter()
    whole = sweep(folder / "whole.sqlite")
    duration = time.perf_counter() - started

    compute = Bench.compute

    def logged(bench: Bench, task: Task) -> object:
        with log.open("a") as file:
            file.write(f"{task.cell}\n")
        return compute(bench, task)

    Bench.compute = logged  # type: ignore[method-assign, assignment]
    store = folder / "killed.sqlite"
    random_ = random.Random(0)
    interrupted, sound, repeated = 0, [], []
    for round_ in range(kills):
        log.write_text("")
        before = finished(store)
        child = os.fork()
        if not child:
            sweep(store)
            os._exit(0)
        if round_ % 3 == 0:  # on a machine of any speed some runs are killed after a cell
            await_second_cell(log, child)
        time.sleep(random_.uniform(0, duration / len(whole.records)))
        os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        interrupted += os.WIFSIGNALED(status)
        sound.append(integrity(store))
        repeated += sorted(before & set(log.read_text().splitlines()))
    done = len(finished(store))
    resumed = sweep(store)
    print(
        json.dumps(
            {
                "cells": len(whole.records),
                "interrupted": interrupted,
                "sound": sound,
                "repeated": repeated,
                "done_by_killed_runs": done,
                "rows": rows(store),
                "computed_at_last": resumed.computed,
                "same": table(resumed.records) == table(whole.records),
                "files": sorted(file.name for file in folder.iterdir()),
            }
        )
    )


def await_second_cell(log: Path, child: int) -> None:
    """Return when the child has begun a second cell, so that it has stored one, or has ended."""
    while log.read_text().count("\n") < 2:
        if os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            return
        time.sleep(0.01)


def finished(store: Path) -> set[str]:
    if not store.exists() or not store.stat().st_size:
        return set()
    return {str(record.cell) for record in sm.SweepResult.load(store).records}


def integrity(store: Path) -> str:
    """What SQLite says of the file; a run may have been killed before there was one."""
    if not store.exists():
        return "ok"
    with sqlite3.connect(store) as connection:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])


def rows(store: Path) -> int:
    with sqlite3.connect(store) as connection:
        return int(connection.execute("SELECT count(*) FROM records").fetchone()[0])


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
