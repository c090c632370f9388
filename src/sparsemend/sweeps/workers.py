"""Cells on several processes of this machine, of one thread each.

Every worker is a process pool of one, so that a worker that dies takes no other one's cell with
it, and so that cells that share work can go to the worker that has it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError
from sparsemend.sweeps._interrupts import without_interrupts
from sparsemend.sweeps.bench import Bench, Compute, Outcomes
from sparsemend.sweeps.inputs import Network
from sparsemend.sweeps.plan import sharing
from sparsemend.sweeps.records import Failure, Record, Task
from sparsemend.sweeps.shipping import pack, unpack

# How often a cell, or the start of a worker, is tried when the process dies of it.
ATTEMPTS = 3


def on_workers(count: int) -> Compute:
    """Compute tasks on worker processes.

    Parameters
    ----------
    count
        Number of processes.
    """
    check_int("workers", count)

    def compute(networks: Sequence[Network], tasks: Sequence[Task]) -> Outcomes:
        packed = pack(networks)
        queue = _Queue(tasks)
        workers: list[_Worker] = []
        running: dict[Future[Record | Failure], tuple[_Worker, Task]] = {}

        def occupy(worker: _Worker) -> None:
            task = queue.take(worker)
            if task is not None:
                running[worker.submit(task)] = (worker, task)

        try:
            for _ in range(min(count, len(tasks))):
                workers.append(_Worker(packed))
            for worker in workers:
                occupy(worker)
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    worker, task = running.pop(future)
                    try:
                        outcome: Record | Failure | None = worker.result(future)
                    except BrokenProcessPool:
                        worker.restart()
                        outcome = queue.give_back(task)
                    occupy(worker)
                    if outcome is not None:
                        yield outcome
        finally:
            for worker in workers:
                worker.stop()

    return compute


class _Queue:
    """Tasks, those that share work going to the same worker as long as it pays."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._groups: dict[tuple[str, int], deque[Task]] = {}
        for task in tasks:
            self._groups.setdefault(sharing(task), deque()).append(task)
        self._at: dict[_Worker, tuple[str, int]] = {}
        self._deaths: Counter[Task] = Counter()

    def take(self, worker: _Worker) -> Task | None:
        """The next task of the group that the worker is at, else of another group."""
        left = [group for group, tasks in self._groups.items() if tasks]
        if not left:
            return None
        at = self._at.get(worker)
        if at not in left:
            taken = {group for other, group in self._at.items() if other is not worker}

            def merit(group: tuple[str, int]) -> tuple[bool, bool, int]:
                same_network = at is not None and at[0] == group[0]
                return (group not in taken, same_network, len(self._groups[group]))

            self._at[worker] = at = max(left, key=merit)
        assert at is not None
        return self._groups[at].popleft()

    def give_back(self, task: Task) -> Failure | None:
        """Queue a task again whose worker died, unless it has killed several."""
        self._deaths[task] += 1
        if self._deaths[task] >= ATTEMPTS:
            return Failure(task.cell, f"its process died {ATTEMPTS} times", task.settings)
        self._groups[sharing(task)].appendleft(task)
        return None


class _Worker:
    """One process, started again when it has died."""

    def __init__(self, packed: bytes) -> None:
        self._packed = packed
        self._failed_starts = 0
        self._start()

    def submit(self, task: Task) -> Future[Record | Failure]:
        try:
            return self._pool.submit(_compute, task)
        except BrokenProcessPool as error:  # died while it was idle
            future: Future[Record | Failure] = Future()
            future.set_exception(error)
            return future

    def result(self, future: Future[Record | Failure]) -> Record | Failure:
        """What a task gave; raises what loading the networks raised, if it did."""
        self._ready.result()
        return future.result()

    def restart(self) -> None:
        """Replace the process that has died.

        Raises
        ------
        SparsemendError
            If it never gets as far as being ready.
        """
        if self._ready.done() and self._ready.exception() is None:
            self._failed_starts = 0
        else:
            self._failed_starts += 1
        if self._failed_starts >= ATTEMPTS:
            raise SparsemendError(
                "worker processes die before they have begun",
                fix="in a script, call sweep below if __name__ == '__main__', because workers "
                "import the script; else use workers=1",
            )
        self.stop()
        self._start()

    def stop(self) -> None:
        """End the process at once, whatever it is at."""
        self._lifeline.close()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _start(self) -> None:
        # Spawned, not forked: a copy of a process that has run PyTorch's threads may hang.
        context = multiprocessing.get_context("spawn")
        reader, self._lifeline = context.Pipe(duplex=False)
        self._pool = ProcessPoolExecutor(
            1, mp_context=context, initializer=_begin, initargs=(reader,)
        )
        resource_tracker.ensure_running()  # its own start ends the state that is meant here
        with without_interrupts():  # which are the driver's to handle, from the first moment on
            self._ready = self._pool.submit(_load, self._packed)


_bench: Bench | None = None  # of a worker process


def _begin(lifeline: Connection) -> None:
    """Set up a worker process: it ends with the driver, even when that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the driver's to handle

    def follow() -> None:
        lifeline.poll(None)  # returns when the driver's end is closed
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _load(packed: bytes) -> None:
    global _bench
    _bench = unpack(packed)


def _compute(task: Task) -> Record | Failure:
    assert _bench is not None, "submitted after _load"
    return _bench.compute(task)
