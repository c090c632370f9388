"""What commands print: a table for people or one JSON object for machines."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from sparsemend.errors import SparsemendError, SparsemendWarning


def print_json(values: Mapping[str, Any]) -> None:
    """One object on standard output; NaN is not JSON and is refused."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


@contextmanager
def friendly_errors(interrupted: str = "interrupted; nothing was written") -> Iterator[None]:
    """One line on standard error for bad input and for warnings, instead of a traceback."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SparsemendWarning)
        try:
            yield
        except SparsemendError as error:
            # Errors of PyTorch that are passed on may have several lines.
            console.print("error:", " ".join(str(error).split()), markup=False, emoji=False)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            console.print(interrupted)
            raise typer.Exit(130) from error
        finally:
            for warning in caught:
                console.print(f"warning: {warning.message}", markup=False, emoji=False)


def check_out(out: Path | None, *endings: str, option: str = "--out") -> None:
    """Refuse a file that could not be written, before any work."""
    if out is None:
        return
    if out.suffix not in endings:
        raise SparsemendError(f"{option} has another ending", str(out), " or ".join(endings))
    if not out.parent.is_dir():
        raise SparsemendError(f"the folder of {option} does not exist", str(out.parent))


def report_path(report: Path | None, no_report: bool, default: Path | None) -> Path | None:
    """Where a command writes its report: as asked, else the default; None for nowhere."""
    if no_report and report is not None:
        raise SparsemendError("--report and --no-report contradict each other")
    chosen = None if no_report else report or default
    check_out(chosen, ".html", option="--report")
    return chosen
