"""Progress bars with time left, on a terminal only; nested work shares one display."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

Advance = Callable[[], None]

# rich allows one live display at a time, so an inner bar joins the outer one's display.
_display: ContextVar[Progress | None] = ContextVar("display", default=None)


def _nothing() -> None:
    return None


@contextmanager
def progress_bar(
    description: str, total: int | None, show: bool | None = None
) -> Iterator[Advance]:
    """Yield a function that advances a bar by one step.

    Parameters
    ----------
    description
        What is going on, shown before the bar.
    total
        Number of steps; None where it is not known.
    show
        True or False to force; None shows the bar when standard error is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield _nothing
        return
    outer = _display.get()
    if outer is not None:
        task = outer.add_task(description, total=total)
        try:
            yield lambda: outer.advance(task)
        finally:
            outer.remove_task(task)
        return
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True, force_terminal=True if show else None)
    with Progress(*columns, console=console, transient=True) as display:
        token = _display.set(display)
        task = display.add_task(description, total=total)
        try:
            yield lambda: display.advance(task)
        finally:
            _display.reset(token)
