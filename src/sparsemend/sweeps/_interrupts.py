"""Interrupts that get lost on their way."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def kept_interrupts() -> Iterator[Callable[[], None]]:
    """Yield a function that raises an interrupt once more which came and did not get through.

    Python drops what is raised in a callback of its own, such as one of a weak reference, and a
    signal may come in the middle of one. Where an interrupt means something else to the program,
    or this is not its main thread, nothing is done.
    """
    came = False

    def note(signal_number: int, frame: FrameType | None) -> None:
        nonlocal came
        came = True
        signal.default_int_handler(signal_number, frame)

    def look() -> None:
        if came:
            raise KeyboardInterrupt

    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield look
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield look
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Processes that are started within get no interrupt; one that comes is handled afterwards."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
