"""Runs a sweep: what the store lacks is computed, and written as soon as it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from sparsemend._progress import progress_bar
from sparsemend.sweep.bench import Bench
from sparsemend.sweep.grid import Grid
from sparsemend.sweep.inputs import Network
from sparsemend.sweep.plan import estimate, plan_tasks
from sparsemend.sweep.records import Failure, Record, Task
from sparsemend.sweep.result import SweepResult
from sparsemend.sweep.store import open_store, read_store

# Computes tasks anywhere and in any order; yields what each gave as soon as it is there.
Compute = Callable[[Sequence[Network], Sequence[Task]], Iterator[Record | Failure]]


def in_process(networks: Sequence[Network], tasks: Sequence[Task]) -> Iterator[Record | Failure]:
    """Compute tasks here, one after the other."""
    bench = Bench(networks)
    for task in tasks:
        yield bench.compute(task)


def run_sweep(
    networks: Sequence[Network],
    grid: Grid,
    scope: str,
    store: Path | None,
    compute: Compute = in_process,
    *,
    progress: bool | None = None,
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
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    SweepResult
        The cells of this grid, whether they were computed now or earlier.
    """
    tasks = plan_tasks(networks, grid, scope)
    with open_store(store) as opened:
        finished = opened.records()
        pending = [task for task in tasks if task not in finished]
        failed = {}
        with progress_bar("sweep", len(pending), progress) as advance:
            for outcome in compute(networks, pending) if pending else ():
                opened.add(outcome)
                if isinstance(outcome, Failure):
                    failed[outcome.cell] = outcome
                advance()
        finished = opened.records()
    return SweepResult(
        records=tuple(finished[task] for task in tasks if task in finished),
        failures=tuple(failed[task.cell] for task in tasks if task.cell in failed),
        computed=len(pending) - len(failed),
    )


def preview_sweep(
    networks: Sequence[Network], grid: Grid, scope: str, store: Path | None
) -> SweepResult:
    """What :func:`run_sweep` would find done and would have to do; computes and writes nothing."""
    tasks = plan_tasks(networks, grid, scope)
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
