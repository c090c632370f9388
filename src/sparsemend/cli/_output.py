"""What commands print: a table for people or one JSON object for machines."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
from rich.console import Console

from sparsemend.boundary import PASSED_ON
from sparsemend.errors import RAISED, SparsemendError, SparsemendWarning, printable, raised_by
from sparsemend.files import cannot_write, check_target, written_files
from sparsemend.startup import INTERRUPTED

_NOTHING = "; nothing was written"


def print_json(values: Mapping[str, Any]) -> None:
    """One object on standard output; NaN is not JSON and is refused."""
    sys.stdout.write(json.dumps(values, allow_nan=False) + "\n")


def percent(fraction: float | None) -> str:
    return "-" if fraction is None else f"{100 * fraction:.2f} %"


@contextmanager
def friendly_errors(interrupted: str = f"interrupted{_NOTHING}") -> Iterator[None]:
    """One line on standard error for errors, interrupts and warnings, instead of a traceback.

    The program then ends with 2, or with 130 where it was interrupted.
    """
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    with warnings.catch_warnings(record=True) as caught, written_files() as written:
        warnings.simplefilter("always", SparsemendWarning)
        try:
            yield
            _flush()
        except (BrokenPipeError, typer.Exit):  # whoever reads has seen enough
            raise
        except RAISED as error:
            # Errors of PyTorch that are passed on may have several lines.
            console.print("error:", " ".join(_said(error).split()), markup=False, emoji=False)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            said = interrupted
            if written:
                files = ", ".join(printable(str(path)) for path in written)
                said = f"{interrupted.removesuffix(_NOTHING)}; before that it wrote {files}"
            console.print(said, markup=False, emoji=False)
            raise typer.Exit(INTERRUPTED) from error
        finally:
            for warning in caught:
                console.print(f"warning: {warning.message}", markup=False, emoji=False)


def _said(error: BaseException) -> str:
    if isinstance(error, SparsemendError):
        return str(error)
    if isinstance(error, PASSED_ON):
        return f"{raised_by(error)}; if memory is short, lower --batch-size or --calibration-size"
    return raised_by(error)


def _flush() -> None:
    """Write what was printed, as long as it can be told that this fails."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        with suppress(OSError, ValueError):  # Python would try again when it ends
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise cannot_write(Path("standard output"), error) from error


def check_out(out: Path | None, *endings: str, option: str = "--out") -> None:
    """Refuse a file that could not be written, before any work."""
    if out is None:
        return
    if out.suffix not in endings:
        raise SparsemendError(f"{option} has another ending", str(out), " or ".join(endings))
    if not out.parent.is_dir():
        raise SparsemendError(f"the folder of {option} does not exist", str(out.parent))
    check_target(out)


def report_path(report: Path | None, no_report: bool, default: Path | None) -> Path | None:
    """Where a command writes its report: as asked, else the default; None for nowhere."""
    if no_report and report is not None:
        raise SparsemendError("--report and --no-report contradict each other")
    chosen = None if no_report else report or default
    check_out(chosen, ".html", option="--report")
    return chosen
