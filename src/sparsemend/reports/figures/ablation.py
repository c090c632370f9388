"""What forcing some layers to another rule's densities does to the repaired network."""

from __future__ import annotations

from collections.abc import Iterator

from sparsemend.reports.ablations import Ablation, find_ablations, gains
from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import Axis, Figure, Label, Line, Mark, Panel, Plate, Table
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import fraction_scale, sparsity_scale
from sparsemend.reports.drawing.text import numbered, shorten
from sparsemend.reports.figures._curves import RIGHT, WIDTH, curve_marks
from sparsemend.reports.series import curves, measure_of, measured, setting_title


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure for every ablation."""
    found = find_ablations(contents.records)
    for index, ablation in enumerate(found):
        yield forced(ablation, numbered("ablation", index, len(found)))


def forced(ablation: Ablation, key: str = "ablation") -> Figure:
    """Base, forced and other rule against sparsity; the gain of forcing is written out."""
    measure = measure_of(ablation.records)
    found = curves(ablation.records, lambda record: measured(record, measure))
    names = (ablation.base, ablation.forced, ablation.other)
    style = series_style(names)
    plates, rows = [], []
    for key_, rules in found.items():
        x = sparsity_scale([p.sparsity for curve in rules.values() for p in curve])
        y = fraction_scale(max(p.mean + p.std for curve in rules.values() for p in curve))
        marks: list[Mark] = [Line(((x.low, 0), (x.high, 0)), "axis", 1)]
        for place, rule in enumerate(name for name in names if name in rules):
            marks.extend(curve_marks(rule, rules[rule], *style[rule], measure))
            marks.append(
                Label(
                    *(x.high, y.high, shorten(rule, 22), style[rule][0]),
                    dx=8,
                    dy=10 + 17 * place,
                    bold=True,
                )
            )
        title = setting_title(key_, found)
        panel = Panel(
            Axis(x, "sparsity: weights removed from the network"),
            Axis(y, "top-1 accuracy" if measure == "accuracy" else "agreement"),
            tuple(marks),
            WIDTH,
            190,
            right=RIGHT + 40,
        )
        plates.append(Plate(((panel,),), f"Ablation, {title}", title))
        for rule, curve in rules.items():
            rows += [(*key_, rule, p.sparsity, p.mean, p.std, p.count) for p in curve]
    return Figure(
        key,
        f"Forcing layers ({ablation.layers}) to the densities of {ablation.other}",
        f"'{ablation.forced}' is {ablation.base} with these layers at the densities of "
        f"{ablation.other} and the rest rescaled to the same budget. " + " ".join(gains(ablation)),
        tuple(plates),
        Table(
            ("network", "mask", "repair", "rule", "sparsity", measure, "std", "seeds"),
            tuple(rows),
        ),
        columns=2,
    )
