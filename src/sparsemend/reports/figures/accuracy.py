"""Accuracy after repair against sparsity, beside the dense network's and guessing."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Axis,
    Figure,
    Mark,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import fraction_scale, sparsity_scale
from sparsemend.reports.figures._curves import (
    HEIGHT,
    RIGHT,
    WIDTH,
    curve_marks,
    level_marks,
    names_beside,
)
from sparsemend.reports.series import Curve, curves, has_curves, setting, setting_title
from sparsemend.sweeps import Record


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where a sweep with labels has curves."""
    labelled = [
        r for r in contents.records if r.top1_repaired is not None and r.cell.sparsity is not None
    ]
    if has_curves(labelled):
        yield accuracy(labelled)


def accuracy(records: Sequence[Record]) -> Figure:
    """Top-1 accuracy, one plate a setting."""
    found = curves(records, lambda record: record.top1_repaired)
    style = series_style(rule for rules in found.values() for rule in rules)
    loss = "KL" if all(r.judged == "kl" for r in records) else "loss"
    return Figure(
        "accuracy",
        "Accuracy after repair",
        "Top-1 accuracy on the test images, mean ± standard deviation over calibration seeds. "
        "Rules are written beside the curves in the order of their average accuracy.",
        tuple(
            _plate(
                setting_title(key, found),
                rules,
                next(r for r in records if setting(r.cell) == key),
                style,
            )
            for key, rules in found.items()
        ),
        Table(
            (
                *("network", "mask", "repair", "rule", "sparsity", "achieved sparsity", "seed"),
                *("top-1 dense", "top-1 pruned", "top-1 repaired", "chance", loss, "agreement"),
                "seconds",
            ),
            tuple(
                (
                    *(r.cell.network, r.cell.mask, r.cell.repair, r.cell.rule, r.cell.sparsity),
                    *(r.achieved_sparsity, r.cell.seed, r.top1_dense, r.top1_pruned),
                    *(r.top1_repaired, r.chance, r.kl, r.agreement, r.seconds),
                )
                for r in records
            ),
        ),
        columns=2,
    )


def _plate(
    title: str,
    rules: Mapping[str, Curve],
    example: Record,
    style: Mapping[str, tuple[str, str]],
) -> Plate:
    x = sparsity_scale([p.sparsity for curve in rules.values() for p in curve])
    highest = max(
        example.top1_dense or 0.0, *(p.mean + p.std for curve in rules.values() for p in curve)
    )
    y = fraction_scale(highest)
    levels = {"dense": example.top1_dense or 0.0, "guessing": example.chance or 0.0}
    marks: list[Mark] = [*level_marks(levels, (x.low, x.high))]
    for rule, curve in rules.items():
        marks.extend(curve_marks(rule, curve, *style[rule], "top-1"))
    averages = {rule: statistics.fmean(p.mean for p in curve) for rule, curve in rules.items()}
    colours = {rule: style[rule][0] for rule in rules}
    marks.extend(names_beside(averages, colours, x.high, y, levels.values()))
    panel = Panel(
        Axis(x, "sparsity: weights removed from the network"),
        Axis(y, "top-1 accuracy"),
        tuple(marks),
        WIDTH,
        HEIGHT,
        right=RIGHT,
    )
    return Plate(((panel,),), f"Top-1 accuracy against sparsity, {title}", title)
