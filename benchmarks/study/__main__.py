"""The study of the paper's claims as one page, its figures as SVG and its numbers as CSV.

python -m benchmarks.study STORES/*.sqlite --out docs/results/full-width

The stores are those of docs/results/run.sh; they are only read, also while it is running.

index.html      all of it
cells.csv       one row for every cell: its key, its result, its settings and its store
claims.csv      one row for every claim, network, mask and repair
pairs.csv       the pairs of cells that each of these is worked out from
*.svg, *.csv    the figures and what they show
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import sparsemend as sm
from benchmarks.study.cells import Study, read_study
from benchmarks.study.claims import Finding, findings
from benchmarks.study.figures import PAIR, claims, effect_text, lead, pair_row
from sparsemend.reports import Report
from sparsemend.sweeps.result import record_row, write_csv

# Of the figures of a report, in the order of the page, those that a study is about.
_FIGURES = ("recovery", "accuracy", "label-free", "ablation")


def make_page(study: Study) -> tuple[Report, list[Finding]]:
    """The page, and what it says of the claims."""
    result = sm.SweepResult(study.records)
    whole = sm.report(result)
    found = list(findings(study))
    own = [claims(found, study), lead(study, result.transitions("accuracy"))]
    shown = [figure for figure in whole.figures if figure.key.startswith(_FIGURES)]
    page = Report(
        title="Relative Repairability: the paper's claims",
        subtitle=whole.subtitle,
        summary=tuple(said(found)) + whole.summary,
        figures=tuple(figure for figure in (*own, *shown) if figure is not None),
    )
    return page, found


def said(found: Sequence[Finding]) -> Iterator[str]:
    """Every claim that has been measured, in words."""
    for claim in dict.fromkeys(finding.claim for finding in found):
        parts = [
            f"{finding.judgement.verdict} on {finding.setting[0]} under {finding.setting[2]} "
            f"({finding.judgement.compared}: {effect_text(finding.judgement.effect)})"
            for finding in found
            if finding.claim == claim and finding.judgement.effect is not None
        ]
        yield f"{claim}: {'; '.join(parts) or 'not measured yet'}."


def write(study: Study, out: Path) -> Report:
    """Write the page, its figures and its numbers into a folder."""
    page, found = make_page(study)
    for kind in ("svg", "csv"):
        page.save_figures(out, kind)
    write_csv(out / "cells.csv", [_cell_row(record, study) for record in study.records])
    rows = [
        {"claim": finding.claim, **dict(zip(PAIR, pair_row(pair, study), strict=True))}
        for finding in found
        for effect in (finding.judgement.effect, finding.judgement.beside)
        if effect is not None
        for pair in effect.pairs
    ]
    write_csv(out / "pairs.csv", rows)
    page.save(out / "index.html")
    return page


def _cell_row(record: Any, study: Study) -> dict[str, Any]:
    """A record without its densities, which the store has, and with the name of that store."""
    row = {name: value for name, value in record_row(record).items() if name != "densities"}
    return {"store": study.stores[record.cell], **row}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("stores", type=Path, nargs="+", help="stores of sweeps")
    parser.add_argument("--out", type=Path, required=True, help="folder of the page")
    options = parser.parse_args()
    study = read_study(options.stores)
    if not study.records:
        raise SystemExit("no cell with labels is finished yet")
    print(write(study, options.out))


if __name__ == "__main__":
    main()
