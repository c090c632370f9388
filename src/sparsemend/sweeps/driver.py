"""Runs a sweep: what the store lacks is computed, and written as soon as it is there."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from sparsemend.errors import printable
from sparsemend.progress import Advance, announce, progress_bar
from sparsemend.sweeps._interrupts import kept_interrupts
from sparsemend.sweeps.bench import Compute, in_process
from sparsemend.sweeps.grid import Grid
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.plan import Forecast, estimate, plan_tasks, sharing, telling_first
from sparsemend.sweeps.records import Failure, Record, Task
from sparsemend.sweeps.result import SweepResult
from sparsemend.sweeps.store import open_store, read_store
from sparsemend.verbs.screen import span

# Seconds; what takes less is done before it is read.
_LONG = 10.0


def run_sweep(
    networks: Sequence[Network],
    grid: Grid,
    scope: str,
    store: Path | None,
    compute: Compute = in_process,
    *,
    budget: float | str | None = None,
    new_biases: bool = False,
    distill: float | str | None = None,
) -> SweepResult:
    """Compute the cells of a grid that the store does not have.

    Parameters
    ----------
    networks
        With distinct names.
    grid, scope
        What to compute.
    store
        SQLite file; None keeps results in memory.
    compute
        Where to compute.
    budget
        Of the searches among them.
    new_biases, distill
        As in a recipe.

    Returns
    -------
    SweepResult
        The cells of this grid, whether they were computed now or earlier.
    """
    tasks = plan_tasks(networks, grid, scope, budget, new_biases=new_biases, distill=distill)
    with open_store(store) as opened:
        finished = opened.records()
        missing = [task for task in tasks if task not in finished]
        opened.expect(missing)
        pending = telling_first(missing)
        failed = {}
        # Closed also when the driver is interrupted, so that no worker goes on.
        with (
            kept_interrupts() as look,
            contextlib.closing(compute(networks, pending)) as outcomes,
            progress_bar("sweep", len(pending)) as advance,
        ):
            watch = _Watch(pending, finished.values(), advance)
            for outcome in outcomes:
                look()  # what was cut short is no record, even if it made the best of it
                opened.add(outcome)
                if isinstance(outcome, Failure):
                    failed[outcome.cell] = outcome
                watch.see(outcome)
        finished = opened.records()
    return SweepResult(
        records=tuple(finished[task] for task in tasks if task in finished),
        failures=tuple(failed[task.cell] for task in tasks if task.cell in failed),
        computed=len(pending) - len(failed),
    )


class _Watch:
    """Says how long the cells of a network will take, once that is known, and what is left of all.

    Parameters
    ----------
    tasks
        The cells to compute.
    finished
        What was computed before.
    advance
        Moves the bar.
    """

    def __init__(self, tasks: Sequence[Task], finished: Iterable[Record], advance: Advance) -> None:
        self._forecast, self._advance = Forecast(tasks, finished), advance
        self._start, self._spent = time.perf_counter(), 0.0
        self._begun: set[tuple[str, int]] = set()
        self._quiet: set[str] = set()
        for network in dict.fromkeys(task.cell.network for task in tasks):
            self._say(network)

    def see(self, outcome: Record | Failure) -> None:
        """Count a cell as done."""
        assert outcome.settings is not None
        task = Task(outcome.cell, outcome.settings)
        seconds = None if isinstance(outcome, Failure) else outcome.seconds
        self._spent += seconds or 0.0
        # The first pays for what all share.
        told = sharing(task) in self._begun
        self._begun.add(sharing(task))
        self._forecast.finish(task, seconds if told else None)
        self._say(task.cell.network)
        self._advance(left=self._left())

    def _say(self, network: str) -> None:
        if network in self._quiet:
            return
        left = self._left(network)
        if left is None:
            return
        self._quiet.add(network)
        if left >= _LONG:
            count = self._forecast.count(network)
            announce(f"sweep of {printable(network)}: {count:,} cells to do, about {span(left)}")

    def _left(self, network: str | None = None) -> float | None:
        """Seconds, where every kind of cell has been seen."""
        found = self._forecast.estimate(network)
        if found.unknown:
            return None
        # Several workers are faster than the sum of their cells, and a busy machine is slower.
        passed = time.perf_counter() - self._start
        return found.seconds * (passed / self._spent if self._spent else 1.0)


def preview_sweep(
    networks: Sequence[Network],
    grid: Grid,
    scope: str,
    store: Path | None,
    *,
    budget: float | str | None = None,
    new_biases: bool = False,
    distill: float | str | None = None,
) -> SweepResult:
    """What :func:`run_sweep` would find done and would have to do; computes and writes nothing."""
    tasks = plan_tasks(networks, grid, scope, budget, new_biases=new_biases, distill=distill)
    finished: dict[Task, Record] = {}
    if store is not None and store.exists() and store.stat().st_size:
        with read_store(store) as opened:
            finished = opened.records()
    pending = [task for task in tasks if task not in finished]
    return SweepResult(
        records=tuple(finished[task] for task in tasks if task in finished),
        pending=tuple(task.cell for task in pending),
        estimate=estimate(pending, finished.values()),
    )
