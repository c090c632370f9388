"""Run many forward passes together, pausing all of them at each chosen module.

Layer-by-layer repair needs, at every layer, that layer's inputs for the whole calibration
set, in the network as repaired so far. Restarting the network for each layer costs a
quadratic number of layer runs. Here every (model, batch) pair has a thread that stops before
each chosen module; when all have arrived, the caller works on the module and lets them go on.
Each module then runs once per batch. Only one thread runs at a time, so results do not depend
on scheduling.

Held in memory: of every batch only what the network itself still needs at the pause (the
module's input, open shortcuts), never the activations of all layers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.errors import SparsemendError

Run = Callable[[], object]


@dataclass(frozen=True)
class Pause:
    """All runs that are waiting before the same module.

    Attributes
    ----------
    name
        The stop's name.
    calls
        Run index → what is about to run and its input; runs that wait elsewhere are missing.
    """

    name: str
    calls: Mapping[int, tuple[Any, Tensor]]


class _Aborted(BaseException):
    """Unwinds a waiting thread; BaseException so that no model catches it."""


class _Worker:
    """One forward pass in a thread that holds the baton only between resume and pause."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._abort = False
        self.at: tuple[str, Any, Tensor] | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._main, daemon=True)
        self.thread.start()

    def _main(self) -> None:
        self._go.acquire()
        try:
            if not self._abort:
                with torch.no_grad():  # gradient mode belongs to the thread
                    self._run()
        except _Aborted:
            pass
        except BaseException as error:
            self.error = error
        self._back.release()

    def resume(self) -> None:
        """Run to the next stop or to the end; raise what the forward pass raised."""
        self.at = None
        self._go.release()
        self._back.acquire()
        if self.error is not None:
            raise self.error

    def pause(self, name: str, carrier: Any, tensor: Tensor) -> None:
        """Called inside the thread."""
        if self._abort:  # the model caught the first one, or has a finally clause
            raise _Aborted
        self.at = (name, carrier, tensor)
        self._back.release()
        self._go.acquire()
        if self._abort:
            raise _Aborted

    def abort(self) -> None:
        self._abort = True
        self._go.release()
        self.thread.join()


_workers: dict[int, _Worker] = {}  # thread → the run in it


def pause(name: str, carrier: Any, tensor: Tensor) -> None:
    """Stop the run that this is called from until the others have arrived; elsewhere, go on.

    Parameters
    ----------
    name
        Of the stop.
    carrier
        What is about to run, for the caller of :func:`lockstep`.
    tensor
        Its input.
    """
    worker = _workers.get(threading.get_ident())
    if worker is not None:
        worker.pause(name, carrier, tensor)


@contextmanager
def module_stops(stops: Mapping[nn.Module, str]) -> Iterator[None]:
    """Within, runs stop before these modules run.

    Parameters
    ----------
    stops
        Module → stop name.
    """

    def stop(module: nn.Module, args: tuple[object, ...]) -> None:
        if not args or not isinstance(args[0], Tensor):
            raise SparsemendError(
                f"module {stops[module]!r} is called without a positional tensor",
                allowed="modules called as module(x)",
            )
        pause(stops[module], module, args[0])

    # Replicas of a module share its hooks: what stops is the module itself.
    handles = [
        module.register_forward_pre_hook(lambda _, args, module=module: stop(module, args))
        for module in stops
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lockstep(runs: Sequence[Run], order: Iterable[str]) -> Generator[Pause]:
    """Advance all runs together and yield at every stop.

    The caller may change what is about to run (a layer's weights, a following module's
    statistics) before taking the next pause. Close the generator to abandon the runs.

    Parameters
    ----------
    runs
        Functions that run a model once on one batch, one per (model, batch), and call
        :func:`pause` on the way.
    order
        Names of the stops in the order in which they are expected.

    Yields
    ------
    Pause
        The stop at which runs wait; where they wait at different ones, the first of ``order``,
        so that runs which skip it wait for the others at the next.
    """
    rank = {name: place for place, name in enumerate(dict.fromkeys(order))}
    workers: list[_Worker] = []
    try:
        for run in runs:
            worker = _Worker(run)
            workers.append(worker)
            assert worker.thread.ident is not None, "it has been started"
            _workers[worker.thread.ident] = worker
        for worker in workers:
            worker.resume()
        while names := [worker.at[0] for worker in workers if worker.at is not None]:
            name = min(names, key=rank.__getitem__)
            calls = {
                index: worker.at[1:]
                for index, worker in enumerate(workers)
                if worker.at is not None and worker.at[0] == name
            }
            here = tuple(calls)
            yield Pause(name, calls)
            calls.clear()  # the caller may still hold the Pause; free its tensors
            for index in here:
                workers[index].resume()
    finally:
        for worker in workers:
            worker.abort()
            _workers.pop(worker.thread.ident or 0, None)
