"""Accuracy after repair against sparsity, beside the dense network's and guessing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Axis,
    Figure,
    Label,
    Line,
    Mark,
    Panel,
    Plate,
    Table,
    spread_out,
)
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Linear, Remaining, fraction_scale, sparsity_scale
from sparsemend.reports.drawing.text import percent, shorten
from sparsemend.reports.figures._curves import RIGHT, WIDTH, curve_marks
from sparsemend.reports.series import Curve, curves, has_curves, setting, setting_title
from sparsemend.sweeps import Record

_HEIGHT = 200.0
_LINE = 15.0


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where a sweep with labels has curves."""
    labelled = [r for r in contents.records if r.top1_repaired is not None]
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
    dense = example.top1_dense or 0.0
    x = sparsity_scale([p.sparsity for curve in rules.values() for p in curve])
    highest = max(dense, *(p.mean + p.std for curve in rules.values() for p in curve))
    y = fraction_scale(highest)
    marks: list[Mark] = []
    chance = example.chance or 0.0
    for level, name in ((dense, "dense"), (chance, "guessing")):
        marks.append(Line(((x.low, level), (x.high, level)), "axis", 1.2, "5 3"))
        marks.append(Label(x.high, level, f"{name} {percent(level)}", "mute", dx=8))
    for rule, curve in rules.items():
        marks.extend(curve_marks(rule, curve, *style[rule], "top-1"))
    marks.extend(_names(rules, style, x, y, top=dense, bottom=chance))
    panel = Panel(
        Axis(x, "sparsity: weights removed from the network"),
        Axis(y, "top-1 accuracy"),
        tuple(marks),
        WIDTH,
        _HEIGHT,
        right=RIGHT,
    )
    return Plate(((panel,),), f"Top-1 accuracy against sparsity, {title}", title)


def _names(
    rules: Mapping[str, Curve],
    style: Mapping[str, tuple[str, str]],
    x: Remaining,
    y: Linear,
    *,
    top: float,
    bottom: float,
) -> Iterator[Label]:
    """The rules' names beside the curves, best on top, clear of the two levels' labels."""
    average = {rule: sum(p.mean for p in c) / len(c) for rule, c in rules.items()}
    line = _LINE / _HEIGHT * (y.high - y.low)
    places = spread_out(list(average.values()), line, bottom + line, top - line)
    for rule, place in zip(average, places, strict=True):
        yield Label(x.high, place, shorten(rule, 14), style[rule][0], dx=8, bold=True)
