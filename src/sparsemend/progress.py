"""Progress bars with time left, on a terminal only; nested work shares one display.

Whether they are shown is ambient: a verb says it once, for all that it calls.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text


class Advance(Protocol):
    """Moves a bar one step on, or to what ``done`` says; may rename it."""

    def __call__(self, description: str | None = None, done: float | None = None) -> None: ...


# rich allows one live display at a time, so an inner bar joins the outer one's display.
_display: ContextVar[Progress | None] = ContextVar("display", default=None)
_shown: ContextVar[bool | None] = ContextVar("shown", default=None)


class _TimeLeft(TimeRemainingColumn):
    """How long it will take, where the number of steps is known."""

    def render(self, task: Task) -> Text:
        return Text() if task.total is None else Text.assemble(super().render(task), " left")


@contextmanager
def progress_shown(show: bool | None) -> Iterator[None]:
    """Show the bars of what is done within, or do not.

    Parameters
    ----------
    show
        True or False to force; None leaves it as it is outside, where bars are shown when
        standard error is a terminal.
    """
    if show is None:
        yield
        return
    token = _shown.set(show)
    try:
        yield
    finally:
        _shown.reset(token)


def _nothing(description: str | None = None, done: float | None = None) -> None:
    """There is no bar."""


def _advancing(display: Progress, task: TaskID) -> Advance:
    def advance(description: str | None = None, done: float | None = None) -> None:
        if description is not None:
            display.update(task, description=description)
        if done is None:
            display.advance(task)
        else:
            display.update(task, completed=done)

    return advance


@contextmanager
def progress_bar(description: str, total: float | None) -> Iterator[Advance]:
    """Yield a function that advances a bar by one step.

    Parameters
    ----------
    description
        What is going on, shown before the bar.
    total
        Number of steps; None where it is not known.
    """
    show = _shown.get()
    if not (sys.stderr.isatty() if show is None else show):
        yield _nothing
        return
    outer = _display.get()
    if outer is not None:
        task = outer.add_task(description, total=total)
        try:
            yield _advancing(outer, task)
        finally:
            outer.remove_task(task)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("elapsed"),
        _TimeLeft(),
    )
    console = Console(stderr=True, force_terminal=True if show else None)
    with Progress(*columns, console=console, transient=True) as display:
        token = _display.set(display)
        task = display.add_task(description, total=total)
        try:
            yield _advancing(display, task)
        finally:
            _display.reset(token)
