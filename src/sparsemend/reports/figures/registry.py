"""The figures of a report by name, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import Figure
from sparsemend.reports.figures import (
    ablation,
    accuracy,
    allocations,
    cost,
    curves,
    heatmap,
    labelfree,
    matrix,
    outcome,
    recovery,
)

# What answers the reader's first question comes first.
FIGURES: dict[str, Callable[[Contents], Iterator[Figure]]] = {
    "recovery": recovery.figures,
    "outcome": outcome.figures,
    "rules and repairs": matrix.figures,
    "repairability": heatmap.figures,
    "allocations": allocations.figures,
    "accuracy": accuracy.figures,
    "cost": cost.figures,
    "without labels": labelfree.figures,
    "ablation": ablation.figures,
    "damage": curves.figures,
}
