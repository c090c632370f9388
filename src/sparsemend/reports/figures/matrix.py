"""Every rule with every repair at a few budgets, as a table of accuracies."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import Axis, Box, Figure, Group, Label, Panel, Plate, Table
from sparsemend.reports.drawing.palette import STEPS
from sparsemend.reports.drawing.scale import Categories
from sparsemend.reports.drawing.text import number, numbered, percent
from sparsemend.reports.series import (
    Budget,
    budget_text,
    by_budget,
    by_measure,
    measure_of,
    measured,
    without_curves,
)
from sparsemend.sweeps import Record


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where there are records but too few budgets for curves."""
    found = [
        records
        for records in map(without_curves, by_measure(contents.records))
        if any(measured(r, measure_of(records)) is not None for r in records)
    ]
    for index, records in enumerate(found):
        yield rules_by_repairs(records, numbered("rules-and-repairs", index, len(found)))


def rules_by_repairs(records: Sequence[Record], key: str = "rules-and-repairs") -> Figure:
    """Rules down, repairs across, one plate a network and budget; means over seeds."""
    measure = measure_of(records)
    name_repair = _repair_names(records)
    values: dict[Budget, dict[tuple[str, str], list[float]]] = {}
    for budget, own in by_budget(records).items():
        for record in own:
            value, cell = measured(record, measure), record.cell
            if value is not None:
                grid = values.setdefault(budget, {})
                grid.setdefault((cell.rule, name_repair[cell.repair, cell.mask]), []).append(value)
    means = {
        budget: {cell: statistics.fmean(found) for cell, found in grid.items()}
        for budget, grid in values.items()
    }
    top = max(max(grid.values()) for grid in means.values())
    name = "Top-1 accuracy" if measure == "accuracy" else "Agreement with the dense network"
    return Figure(
        key,
        f"{name} of every rule with every repair",
        f"In percent; the stronger the colour, the higher (from 0 to {percent(top)}). The best "
        "of each budget is framed.",
        tuple(
            _plate(f"{budget[0]}, {budget_text(budget)}", grid, top or 1.0)
            for budget, grid in means.items()
        ),
        Table(
            ("network", "sparsity", "target", "rule", "repair", measure),
            tuple(
                (*budget, *cell, v) for budget, grid in means.items() for cell, v in grid.items()
            ),
        ),
    )


def _repair_names(records: Sequence[Record]) -> dict[tuple[str, str], str]:
    """(repair, mask) → name of its column: the mask only where a repair was run with several."""
    found = dict.fromkeys((record.cell.repair, record.cell.mask) for record in records)
    repairs = [repair for repair, _ in found]
    return {
        (repair, mask): repair if repairs.count(repair) == 1 else f"{repair}, {mask}"
        for repair, mask in found
    }


def _plate(title: str, grid: dict[tuple[str, str], float], top: float) -> Plate:
    rules = tuple(dict.fromkeys(rule for rule, _ in grid))
    repairs = tuple(dict.fromkeys(repair for _, repair in grid))
    best = max(grid, key=lambda cell: grid[cell])
    rows = []
    for r, rule in enumerate(rules):
        marks: list[Box | Label] = []
        for c, repair in enumerate(repairs):
            value = grid.get((rule, repair))
            if value is None:
                continue
            # The lower half of the diverging scale, from its neutral middle to its end.
            step = round((STEPS - 1) / 2 * (1 - 0.75 * value / top))
            outline = "ink" if (rule, repair) == best else ""
            box = (c - 0.5, c + 0.5, r - 0.5, r + 0.5)
            tip = f"repair {repair}: {percent(value)}"
            marks.append(Box(*box, f"d{step}", gap=1, outline=outline, tip=tip))
            bold = (rule, repair) == best
            marks.append(Label(c, r, number(100 * value), "ink", "middle", bold=bold))
        rows.append(Group(f"rule {rule}", tuple(marks)))
    wrapped = Categories(tuple(r.replace("batchnorm", "bn") for r in repairs), longest=17)
    panel = Panel(
        Axis(wrapped, "repair (bn: BatchNorm recalibration)", grid=False),
        Axis(Categories(rules), grid=False),
        tuple(rows),
        92.0 * len(repairs),
        22.0 * len(rules),
    )
    return Plate(((panel,),), f"Rules by repairs, {title}", title)
