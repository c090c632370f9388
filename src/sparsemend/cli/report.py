"""sparsemend report: results as one page, and as figures for papers."""

from __future__ import annotations

from pathlib import Path

import sparsemend as sm
from sparsemend.cli._command import Argument, Given, command
from sparsemend.cli._output import check_out, print_json
from sparsemend.recipe.options import Option
from sparsemend.reports.sources import load_source


@command(
    Argument(
        "sources",
        Path,
        "Files of diagnose --out, compress --json, allocate --json or a sweep's store.",
        required=True,
        several=True,
    ),
    Option("out", Path, "The page to write; default the first source as .html."),
    Option("svg", Path, "Also every figure as SVG in this folder."),
    Option("png", Path, "Also as PNG; needs the extra 'figures'."),
    Option("csv", Path, "Also the numbers behind every figure as CSV."),
    Option("title", str, "Heading of the page."),
)
def report(given: Given) -> None:
    """Make one self-contained page of results: figures, their numbers, and what they say.

    Example: sparsemend report diagnosis.json --out report.html
    """
    first = given.sources[0]
    target = given.out or first.parent / f"{first.stem}.html"
    check_out(target, ".html")
    page = sm.report(
        named={source.stem: load_source(source) for source in given.sources}, title=given.title
    )
    written: list[Path] = []
    for kind in ("svg", "png", "csv"):
        folder = given.values[kind]
        if folder is not None:
            written += page.save_figures(folder, kind)
    page.save(target)
    if given.json:
        print_json(
            {
                "out": str(target),
                "summary": list(page.summary),
                "figures": [figure.key for figure in page.figures],
                "files": [str(path) for path in written],
            }
        )
        return
    print(page)
    for path in (*written, target):
        print(f"wrote {path}")
