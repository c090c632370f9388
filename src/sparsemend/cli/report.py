"""sparsemend report: results as one page, and as figures for papers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, print_json
from sparsemend.reports.sources import load_source


def report(
    sources: Annotated[
        list[Path],
        typer.Argument(
            help="Files of diagnose --out, compress --json, allocate --json or a sweep's store.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The page to write; default the first source as .html.")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option(help="Also every figure as SVG in this folder.")
    ] = None,
    png: Annotated[
        Path | None, typer.Option(help="Also as PNG; needs the extra 'figures'.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(help="Also the numbers behind every figure as CSV.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Heading of the page.")] = None,
    json: opt.Json = False,
) -> None:
    """Make one self-contained page of results: figures, their numbers, and what they say.

    Example: sparsemend report diagnosis.json --out report.html
    """
    with friendly_errors():
        target = out or sources[0].with_suffix(".html")
        opt.check_out(target, ".html")
        page = sm.report(
            named={source.stem: load_source(source) for source in sources}, title=title
        )
        written: list[Path] = []
        for kind, folder in (("svg", svg), ("png", png), ("csv", csv)):
            if folder is not None:
                written += page.save_figures(folder, kind)
        page.save(target)
        if json:
            figures = [figure.key for figure in page.figures]
            files = [str(path) for path in written]
            print_json(
                {
                    "out": str(target),
                    "summary": list(page.summary),
                    "figures": figures,
                    "files": files,
                }
            )
            return
        print(page)
        for path in (*written, target):
            print(f"wrote {path}")
