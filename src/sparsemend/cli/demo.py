"""sparsemend demo: everything on data that is already installed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsemend import demo as library
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, print_json


def demo(
    out: Annotated[Path, typer.Option(help="Folder for what the demo writes.")] = Path(
        "sparsemend-demo"
    ),
    report: opt.Report = None,
    no_report: opt.NoReport = False,
    json: opt.Json = False,
) -> None:
    """Train a small network on scikit-learn's digits, then diagnose, prune and repair it.

    Example: sparsemend demo --out sparsemend-demo
    """
    with friendly_errors():
        page = opt.report_path(report, no_report, None)
        if page is None and not no_report:
            page = out / "report.html"
        result = library.run(out, page=page)
        if json:
            cells = [library.row(record) for record in result.records]
            files = [str(file) for file in result.files]
            report_file = None if result.report is None else str(result.report)
            print_json(
                {
                    "top1_dense": result.dense.top1,
                    "cells": cells,
                    "files": files,
                    "report": report_file,
                }
            )
            return
        print(f"dense network: {result.dense}\n")
        print(f"{result.diagnosis}\n")
        for sparsity in dict.fromkeys(record.cell.sparsity for record in result.records):
            print(f"{result.table(sparsity)}\n")
        best, checkpoint = library.row(result.best), result.files[-1]
        print(
            f"best at {100 * best['sparsity']:.0f} % sparsity: rule {best['rule']}, repair "
            f"{best['repair']}, {100 * best['top1']:.1f} % top-1\n"
        )
        print("wrote")
        for file in (*result.files, *([result.report] if result.report else [])):
            print(f"  {file}")
        print(
            "\ntry next\n"
            f"  sparsemend evaluate --model digits --weights {checkpoint} --data digits\n"
            "  sparsemend compress --model digits --data digits --sparsity 0.97 --rule erk "
            "--repair variance+batchnorm\n"
            "  sparsemend diagnose --model digits --data digits --repair affine"
        )
