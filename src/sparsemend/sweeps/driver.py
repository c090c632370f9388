"""Runs a sweep: what the store lacks is computed, and written as soon as it is there."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path

from sparsemend.progress import progress_bar
from sparsemend.sweeps._interrupts import kept_interrupts
from sparsemend.sweeps.bench import Compute, in_process
from sparsemend.sweeps.grid import Grid
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.plan import estimate, plan_tasks
from sparsemend.sweeps.records import Failure, Record, Task
from sparsemend.sweeps.result import SweepResult
from sparsemend.sweeps.store import open_store, read_store


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
        pending = [task for task in tasks if task not in finished]
        failed = {}
        # Closed also when the driver is interrupted, so that no worker goes on.
        with (
            kept_interrupts() as look,
            contextlib.closing(compute(networks, pending)) as outcomes,
            progress_bar("sweep", len(pending)) as advance,
        ):
            for outcome in outcomes:
                look()  # what was cut short is no record, even if it made the best of it
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
