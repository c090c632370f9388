"""The command line: a thin layer over the public interface, one file per command."""

from __future__ import annotations

from typing import Annotated

import typer

import sparsemend
from sparsemend.cli.ablate import ablate
from sparsemend.cli.allocate import allocate
from sparsemend.cli.compress import compress
from sparsemend.cli.demo import demo
from sparsemend.cli.diagnose import diagnose
from sparsemend.cli.evaluate import evaluate
from sparsemend.cli.report import report
from sparsemend.cli.sweep import sweep

app = typer.Typer(
    name="sparsemend",
    help="Prune a trained network very hard without labels, and repair it.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
for command in (evaluate, diagnose, allocate, compress, sweep, ablate, report, demo):
    app.command()(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"sparsemend {sparsemend.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Version.")
    ] = False,
) -> None:
    """Prune a trained network very hard without labels, and repair it."""


def main() -> None:
    """Entry point of the ``sparsemend`` command and of ``python -m sparsemend``."""
    app(prog_name="sparsemend")
