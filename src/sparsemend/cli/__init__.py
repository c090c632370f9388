"""The command line: a thin layer over the public interface, one file per command."""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

import sparsemend
from sparsemend.cli import (
    ablate,
    allocate,
    bench,
    compress,
    demo,
    diagnose,
    evaluate,
    export,
    report,
    sweep,
)

_COMMANDS = (
    evaluate.evaluate,
    diagnose.diagnose,
    allocate.allocate,
    compress.compress,
    export.export,
    bench.bench,
    sweep.sweep,
    ablate.ablate,
    report.report,
    demo.demo,
)


def make_app() -> typer.Typer:
    """All commands; their help names the parts that are registered by now."""
    made = typer.Typer(
        name="sparsemend",
        help="Prune a trained network very hard without labels, and repair it.",
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_show_locals=False,
    )
    made.callback()(_program)
    for command in _COMMANDS:
        made.command()(command.function())
    return made


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sparsemend {sparsemend.__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Prune a trained network very hard without labels, and repair it."""


app = make_app()


def main() -> None:
    """Entry point of the ``sparsemend`` command and of ``python -m sparsemend``.

    It ends with 0; 1 where some cells of a sweep failed; 2 for bad input or any other error; 130
    where it was interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # names may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    make_app()(prog_name="sparsemend")
