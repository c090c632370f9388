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

import contextvars
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from sparsemend.errors import SparsemendError
from sparsemend.execution.offload import streamed
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
        self.passing = False  # stops no more
        # With the caller's context variables, which threads do not inherit.
        context = contextvars.copy_context()
        self.thread = threading.Thread(target=context.run, args=(self._main,), daemon=True)

    def _main(self) -> None:
        _current.worker = self
        self._go.acquire()
        try:
            if not self._abort:
                with torch.no_grad(), streamed():  # both belong to the thread
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
        """Let the thread end, at once or as soon as it has started; any number of times."""
        self._abort = True
        self._go.release()

    def join(self) -> None:
        if self.thread.ident is not None:
            self.thread.join()


_current = threading.local()  # in the thread of a run, its worker


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

    Raises
    ------
    NotFiniteError
        If the input holds NaN or infinity. The run that it ends stops no more, so that whoever
        looks for the cause can run the network again within it.
    """
    worker: _Worker | None = getattr(_current, "worker", None)
    if worker is None or worker.passing:
        return
    if not is_finite(tensor):
        worker.passing = True
        raise NotFiniteError(f"the inputs of layer {name!r} are NaN or infinite")
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

    handles: list[RemovableHandle] = []

    def remove() -> None:
        for handle in handles:
            handle.remove()

    with _ended(remove):
        for module in stops:
            # Replicas of a module share its hooks: what stops is the module itself.
            handles.append(module.register_forward_pre_hook(partial(_own, stop, module)))
        yield


def _own(
    stop: Callable[[nn.Module, tuple[object, ...]], None],
    module: nn.Module,
    _: nn.Module,
    args: tuple[object, ...],
) -> None:
    stop(module, args)


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

    Raises
    ------
    NotFiniteError
        If a stop's input holds NaN or infinity.
    """
    rank = {name: place for place, name in enumerate(dict.fromkeys(order))}
    workers = [_Worker(run) for run in runs]
    with _ended(lambda: _end(workers)):
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
