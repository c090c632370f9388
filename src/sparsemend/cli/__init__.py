"""The command line: a thin layer over the public interface, one file per command."""

from __future__ import annotations

from typing import Annotated

import typer

import sparsemend
from sparsemend.cli import (
    ablate,
    allocate,
    compress,
    demo,
    diagnose,
    evaluate,
    report,
    sweep,
)

app = typer.Typer(
    name="sparsemend",
    help="Prune a trained network very hard without labels, and repair it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for command in (
    evaluate.evaluate,
    diagnose.diagnose,
    allocate.allocate,
    compress.compress,
    sweep.sweep,
    ablate.ablate,
    report.report,
    demo.demo,
):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sparsemend {sparsemend.__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Prune a trained network very hard without labels, and repair it."""


def main() -> None:
    """Entry point of the ``sparsemend`` command and of ``python -m sparsemend``."""
    app(prog_name="sparsemend")
