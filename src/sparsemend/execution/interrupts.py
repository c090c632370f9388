"""Interrupts that end a part of the work with the best so far, and the whole with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class Noted:
    """Whether an interrupt came that a part of the work has taken for its own end."""

    came: bool = False


_noted: ContextVar[tuple[Noted, ...]] = ContextVar("noted", default=())


@contextmanager
def interrupts_noted() -> Iterator[Noted]:
    """Learn of interrupts within that were caught; whoever goes on with more work has to look."""
    note = Noted()
    token = _noted.set((*_noted.get(), note))
    try:
        yield note
    finally:
        _noted.reset(token)


def note_interrupt() -> None:
    """Tell all who asked that an interrupt was caught."""
    for note in _noted.get():
        note.came = True
