"""How many threads compute: independent pieces of work side by side, each on one thread.

PyTorch spreads every operation over all threads and waits for the slowest. With many small
operations most of the time is waiting, the more so on a busy machine; whole pieces of work do
not have to wait for each other.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

_pools: dict[tuple[int, int], ThreadPoolExecutor] = {}
_lock = threading.Lock()


def threaded_map(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    cost: Callable[[Item], float] | None = None,
) -> list[Result]:
    """Apply a function to every item, on as many threads as PyTorch is set to use.

    Within ``work``, PyTorch then uses one thread. If a piece fails, those that have not begun are
    dropped.

    Parameters
    ----------
    work
        The function.
    items
        What it is applied to.
    cost
        About how long an item takes, in any unit: the longest begin first, so that all threads
        end at about the same time.

    Returns
    -------
    list
        Results in the order of the items.
    """
    pieces = list(items)
    threads = torch.get_num_threads()
    if threads < 2 or len(pieces) < 2:
        return [work(piece) for piece in pieces]
    order = list(range(len(pieces)))
    if cost is not None:
        order.sort(key=lambda index: -cost(pieces[index]))
    pool = _pool(threads)
    futures = {index: pool.submit(work, pieces[index]) for index in order}
    try:
        return [futures[index].result() for index in range(len(pieces))]
    finally:
        for future in futures.values():
            future.cancel()
        wait(futures.values())


@contextmanager
def thread_count(count: int) -> Iterator[None]:
    """PyTorch's operations on so many threads, within ``with``."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _pool(threads: int) -> ThreadPoolExecutor:
    """The pool of this process: a fork inherits the object, but not its threads."""
    key = (os.getpid(), threads)
    with _lock:
        if key not in _pools:
            pool = ThreadPoolExecutor(threads, "sparsemend", _compute_alone)
            # All threads must have begun before the number for later threads is set back.
            started = threading.Barrier(threads)
            wait([pool.submit(started.wait) for _ in range(threads)])
            torch.set_num_threads(threads)
            _pools[key] = pool
        return _pools[key]


def _compute_alone() -> None:
    torch.get_num_threads()  # PyTorch sets up a thread on first use, and would undo what follows
    torch.set_num_threads(1)
