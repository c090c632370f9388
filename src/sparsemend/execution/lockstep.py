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
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsemend.errors import SparsemendError
from sparsemend.finite import NotFiniteError, is_finite

Run = Callable[[], object]


@dataclass(frozen=True)
class Pause:
    """All runs that are waiting before the same module.

    Attributes
    ----------
    name
        The stop's name.
    calls
        Run index → the waiting module and its input; runs that wait elsewhere are missing.
    """

    name: str
    calls: Mapping[int, tuple[nn.Module, Tensor]]


class _Aborted(BaseException):
    """Unwinds a waiting thread; BaseException so that no model catches it."""


class _Worker:
    """One forward pass in a thread that holds the baton only between resume and pause."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._go = threading.Semaphore(0)
        self._back = threading.Semaphore(0)
        self._abort = False
        self.at: tuple[str, nn.Module, Tensor] | None = None
        self.error: BaseException | None = None
        self.passing = False  # stops no more
        self.thread = threading.Thread(target=self._main, daemon=True)

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

    def pause(self, name: str, module: nn.Module, tensor: Tensor) -> None:
        """Called inside the thread by a stop's hook."""
        if self._abort:  # the model caught the first one, or has a finally clause
            raise _Aborted
        self.at = (name, module, tensor)
        self._back.release()
        self._go.acquire()
        if self._abort:
            raise _Aborted

    def abort(self) -> None:
        """Let the thread end, at once or as soon as it has started; any number of times."""
        self._abort = True
        self._go.release()

    def join(self) -> None:
        if self.thread.ident is not None:
            self.thread.join()


@contextmanager
def _ended(end: Callable[[], None]) -> Iterator[None]:
    """Call ``end`` at last; where that is interrupted, once more."""
    try:
        try:
            yield
        finally:
            end()
    finally:
        end()


def _end(workers: Collection[_Worker]) -> None:
    """Wait until all threads have ended. Once it has begun they all do, even if nobody waits."""
    for worker in workers:
        worker.abort()
    for worker in workers:
        worker.join()


@contextmanager
def _stops(
    workers: Mapping[threading.Thread, _Worker], stops: Mapping[nn.Module, str]
) -> Iterator[None]:
    def hook(module: nn.Module, args: tuple[object, ...]) -> None:
        worker = workers.get(threading.current_thread())
        if worker is None or worker.passing:
            return
        if not args or not isinstance(args[0], Tensor):
            raise SparsemendError(
                f"layer {stops[module]!r} is called without a positional tensor",
                allowed="layers called as layer(x)",
            )
        if not is_finite(args[0]):
            worker.passing = True  # whoever looks for the origin may run the network again
            raise NotFiniteError(f"the inputs of layer {stops[module]!r} are NaN or infinite")
        worker.pause(stops[module], module, args[0])

    handles: list[RemovableHandle] = []

    def remove() -> None:
        for handle in handles:
            handle.remove()

    with _ended(remove):
        for module in stops:
            handles.append(module.register_forward_pre_hook(hook))
        yield


def lockstep(runs: Sequence[Run], stops: Mapping[nn.Module, str]) -> Generator[Pause]:
    """Advance all runs together and yield at every stop, before its module runs.

    The caller may change the paused module (its weights, a following module's statistics)
    before taking the next pause. Close the generator to abandon the runs.

    Parameters
    ----------
    runs
        Functions that run a model once on one batch, one per (model, batch).
    stops
        Module → stop name, in the order in which they are expected; modules of different
        models that belong together share a name.

    Yields
    ------
    Pause
        The stop at which runs wait; where they wait at different ones, the first of ``stops``,
        so that runs which skip it wait for the others at the next.

    Raises
    ------
    NotFiniteError
        If a stop's input holds NaN or infinity.
    """
    rank = {name: place for place, name in enumerate(dict.fromkeys(stops.values()))}
    workers = [_Worker(run) for run in runs]
    with (
        _stops({worker.thread: worker for worker in workers}, stops),
        _ended(lambda: _end(workers)),
    ):
        for worker in workers:
            worker.thread.start()
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
