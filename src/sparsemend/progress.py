"""Progress bars with time left, on a terminal only; nested work shares one display.

Whether they are shown is ambient: a verb says it once, for all that it calls.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import timedelta
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
from rich.progress_bar import ProgressBar
from rich.text import Text


class Advance(Protocol):
    """Moves a bar one step on, or to what ``done`` says; may rename it.

    ``left`` is how many seconds are left, where that is known better than from the steps so far.
    """

    def __call__(
        self,
        description: str | None = None,
        done: float | None = None,
        left: float | None = None,
    ) -> None: ...


# rich allows one live display at a time, so an inner bar joins the outer one's display.
_display: ContextVar[Progress | None] = ContextVar("display", default=None)
_shown: ContextVar[bool | None] = ContextVar("shown", default=None)
_announced: ContextVar[bool] = ContextVar("announced", default=False)


class _Steps(MofNCompleteColumn):
    """How many steps are done; of a time alone, there are none."""

    def render(self, task: Task) -> Text:
        timed = task.total is None and _seconds(task) is not None
        return Text() if timed else super().render(task)


class _Bar(BarColumn):
    """How much is done; of a time, how much has passed."""

    def render(self, task: Task) -> ProgressBar:
        seconds = _seconds(task)
        if seconds is None:
            return super().render(task)
        passed = min(task.elapsed or 0.0, seconds)
        return ProgressBar(total=seconds, completed=passed, width=self.bar_width)


def _seconds(task: Task) -> float | None:
    seconds: float | None = task.fields.get("seconds")
    return seconds


class _TimeLeft(TimeRemainingColumn):
    """How long it will take, where the number of steps or the time is known."""

    def render(self, task: Task) -> Text:
        seconds = _seconds(task)
        if seconds is not None:
            left = timedelta(seconds=max(0, round(seconds - (task.elapsed or 0.0))))
            return Text(f"{left} left", style="progress.remaining")
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


@contextmanager
def announcing() -> Iterator[None]:
    """Say what is done within also where no bars are shown, on standard error."""
    token = _announced.set(True)
    try:
        yield
    finally:
        _announced.reset(token)


def announce(text: str) -> None:
    """Say something about the work that is beginning, where bars or announcements are shown."""
    show = _shown.get()
    if not (_announced.get() or (sys.stderr.isatty() if show is None else show)):
        return
    display = _display.get()
    if display is None:
        print(text, file=sys.stderr, flush=True)
    else:
        display.console.print(text, markup=False, highlight=False)


def _nothing(
    description: str | None = None, done: float | None = None, left: float | None = None
) -> None:
    """There is no bar."""


def _advancing(display: Progress, task: TaskID) -> Advance:
    start = time.monotonic()

    def advance(
        description: str | None = None, done: float | None = None, left: float | None = None
    ) -> None:
        if left is not None:
            display.update(task, seconds=time.monotonic() - start + left)
        if description is not None:
            display.update(task, description=description)
        if done is None:
            display.advance(task)
        else:
            display.update(task, completed=done)

    return advance


@contextmanager
def timed_bar(description: str, seconds: float) -> Iterator[None]:
    """A bar of time, over those of what is done within.

    Parameters
    ----------
    description
        What is going on.
    seconds
        How long it is thought to take.
    """
    with progress_bar(description, None, seconds=seconds):
        yield


@contextmanager
def progress_bar(
    description: str, total: float | None, *, seconds: float | None = None
) -> Iterator[Advance]:
    """Yield a function that advances a bar by one step.

    Parameters
    ----------
    description
        What is going on, shown before the bar.
    total
        Number of steps; None where it is not known.
    seconds
        How long it will take, where that is known instead.
    """
    show = _shown.get()
    if not (sys.stderr.isatty() if show is None else show):
        yield _nothing
        return
    outer = _display.get()
    if outer is not None:
        task = outer.add_task(description, total=total, seconds=seconds)
        try:
            yield _advancing(outer, task)
        finally:
            outer.remove_task(task)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        _Bar(),
        _Steps(),
        TimeElapsedColumn(),
        TextColumn("elapsed"),
        _TimeLeft(),
    )
    console = Console(stderr=True, force_terminal=True if show else None)
    with Progress(*columns, console=console, transient=True) as display:
        token = _display.set(display)
        task = display.add_task(description, total=total, seconds=seconds)
        try:
            yield _advancing(display, task)
        finally:
            _display.reset(token)
