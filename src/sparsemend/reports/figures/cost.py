"""Accuracy after repair against what a network costs: multiplications, measured time, size."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Axis,
    Dot,
    Figure,
    Mark,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Linear, Logarithmic, fraction_scale
from sparsemend.reports.drawing.text import numbered
from sparsemend.reports.figures._curves import (
    HEIGHT,
    RADIUS,
    RIGHT,
    WIDTH,
    banded_marks,
    level_marks,
    names_beside,
    spread_text,
)
from sparsemend.reports.series import (
    Priced,
    budget_text,
    by_measure,
    cost_curves,
    has_costs,
    has_curves,
    measure_of,
    setting,
    setting_title,
)
from sparsemend.sweeps import Measure, Record
from sparsemend.targets import Kind

# From this ratio of the ends on, an axis of costs is logarithmic.
_WIDE = 3.0


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where a sweep has curves over sparsities or targets, and their costs."""
    found = []
    for records in by_measure(contents.records):
        if (has_curves(records) or has_costs(records)) and cost_curves(records):
            found.append(records)
    for index, records in enumerate(found):
        yield against_cost(records, numbered("cost", index, len(found)))


def against_cost(records: Sequence[Record], key: str = "cost") -> Figure:
    """One line a rule, one plate a setting and kind of cost."""
    measure = measure_of(records)
    found = cost_curves(records)
    style = series_style(rule for rules in found.values() for rule in rules)
    what = "Top-1 accuracy" if measure == "accuracy" else "Agreement with the dense network"
    settings = [place for place, _ in found]
    return Figure(
        key,
        "Accuracy against cost" if measure == "accuracy" else "Agreement against cost",
        f"{what} after repair against what the network costs that rule and budget lead to, mean ± "
        "standard deviation over calibration seeds: the share of the dense network's "
        "multiplications that is left, and what was measured for targets. Further up and to the "
        "left is better. Rules are written beside the curves in the order of their average.",
        tuple(
            _plate(
                setting_title(place, settings),
                kind,
                rules,
                _levels(measure, next(r for r in records if setting(r.cell) == place)),
                style,
            )
            for (place, kind), rules in found.items()
        ),
        Table(
            (
                *("network", "mask", "repair", "rule", "sparsity", "target", "kind of cost"),
                *("cost", measure, "std", "seeds"),
            ),
            tuple(
                (
                    *(*place, rule, *p.budget[1:], kind.name),
                    *(p.cost * kind.unit, p.mean, p.std, p.count),
                )
                for (place, kind), rules in found.items()
                for rule, curve in rules.items()
                for p in curve
            ),
        ),
        columns=2,
    )


def _levels(measure: Measure, example: Record) -> dict[str, float]:
    """Of the dense network and of guessing, where they are known."""
    dense = example.top1_dense if measure == "accuracy" else None
    chance = example.chance if measure == "accuracy" or example.agreement is not None else None
    levels = {"guessing": chance, "dense": dense}
    return {name: level for name, level in levels.items() if level is not None}


def _plate(
    title: str,
    kind: Kind,
    rules: Mapping[str, Sequence[Priced]],
    levels: Mapping[str, float],
    style: Mapping[str, tuple[str, str]],
) -> Plate:
    x = _scale([p.cost for curve in rules.values() for p in curve])
    highest = [p.mean + p.std for curve in rules.values() for p in curve]
    y = fraction_scale(max([*levels.values(), *highest]))
    marks: list[Mark] = [*level_marks(levels, (x.low, x.high))]
    for rule, curve in rules.items():
        marks.extend(_marks(rule, curve, style[rule]))
    averages = {rule: statistics.fmean(p.mean for p in c) for rule, c in rules.items()}
    colours = {rule: style[rule][0] for rule in rules}
    marks.extend(names_beside(averages, colours, x.high, y, levels.values()))
    what = "top-1 accuracy" if "dense" in levels else "agreement"
    panel = Panel(Axis(x, kind.axis), Axis(y, what), tuple(marks), WIDTH, HEIGHT, right=RIGHT)
    described = f"{what.capitalize()} against {kind.axis}, {title}"
    return Plate(((panel,),), described, title)


def _marks(rule: str, curve: Sequence[Priced], style: tuple[str, str]) -> Iterator[Mark]:
    """A curve with its band over seeds, and a dot with a tip for every budget."""
    dots = [
        Dot(p.cost, p.mean, *style, RADIUS, tip=f"{budget_text(p.budget)}: {spread_text(p)}")
        for p in curve
    ]
    yield from banded_marks(rule, dots, [p.std for p in curve])


def _scale(costs: Sequence[float]) -> Linear | Logarithmic:
    low, high = min(costs), max(costs)
    if high > _WIDE * low:
        return Logarithmic(low / 1.06, high * 1.06, plain=True)
    margin = 0.03 * (high - low) or 0.1 * high
    return Linear(max(low - margin, 0.0), high + margin)
