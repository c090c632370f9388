"""sparsemend demo: everything on data that is already installed."""

from __future__ import annotations

from pathlib import Path

from sparsemend import demo as library
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import NO_REPORT, REPORT
from sparsemend.cli._output import print_json, report_path
from sparsemend.recipe.options import Option


@command(
    Option("out", Path, "Folder for what the demo writes.", Path("sparsemend-demo")),
    REPORT,
    NO_REPORT,
)
def demo(given: Given) -> None:
    """Train a small network on scikit-learn's digits, then diagnose, prune and repair it.

    Example: sparsemend demo --out sparsemend-demo
    """
    page = report_path(given.report, given.no_report, None)
    if page is None and not given.no_report:
        page = given.out / "report.html"
    result = library.run(given.out, page=page)
    if given.json:
        print_json(
            {
                "top1_dense": result.dense.top1,
                "cells": [library.row(record) for record in result.records],
                "files": [str(file) for file in result.files],
                "timing": result.timing.to_dict(),
                "report": None if result.report is None else str(result.report),
            }
        )
        return
    print(f"dense network: {result.dense}\n")
    print(f"{result.diagnosis}\n")
    for sparsity in dict.fromkeys(library.row(record)["sparsity"] for record in result.records):
        print(f"{result.table(sparsity)}\n")
    best, (*_, checkpoint, packed) = library.row(result.best), result.files
    print(
        f"best at {100 * best['sparsity']:.0f} % sparsity: rule {best['rule']}, repair "
        f"{best['repair']}, {100 * best['top1']:.1f} % top-1\n"
    )
    print(f"{result.export}\n{result.timing}\n")
    print("wrote")
    for file in (*result.files, *([result.report] if result.report else [])):
        print(f"  {file}")
    print(
        "\ntry next\n"
        f"  sparsemend evaluate --model digits --weights {checkpoint} --data digits\n"
        f"  sparsemend export --model digits --weights {checkpoint} --data digits --format c "
        f"--out {packed.with_suffix('')}-c\n"
        "  sparsemend compress --model digits --data digits --sparsity 0.97 --rule erk "
        "--repair variance+batchnorm\n"
        "  sparsemend diagnose --model digits --data digits --repair affine"
    )
