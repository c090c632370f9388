"""What forcing some layers to another rule's densities does to the repaired network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparsemend.allocation import parse_forced
from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import Axis, Figure, Label, Line, Mark, Panel, Plate, Table
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import fraction_scale, sparsity_scale
from sparsemend.reports.drawing.text import numbered, percent, points, shorten
from sparsemend.reports.figures._curves import RIGHT, WIDTH, curve_marks
from sparsemend.reports.figures._series import by_measure, curves, measure_of, setting_title
from sparsemend.sweeps import Measure, Record


@dataclass(frozen=True)
class Ablation:
    """A rule, the same with some layers forced to another rule's densities, and that rule.

    Attributes
    ----------
    layers
        Which layers were forced.
    base, forced, other
        The names of the three under ``rule`` in the records.
    records
        Of all three, over sparsities and seeds.
    """

    layers: str
    base: str
    forced: str
    other: str
    records: tuple[Record, ...]


def find_ablations(records: Sequence[Record]) -> list[Ablation]:
    """One for every rule of the form ``base[layers=other]`` in a sweep."""
    found = []
    for group in by_measure(records):
        for name in dict.fromkeys(record.cell.rule for record in group):
            rule = parse_forced(name)
            if rule is not None:
                three = (rule.base, name, rule.source)
                own = tuple(record for record in group if record.cell.rule in three)
                found.append(Ablation(rule.pattern, *three, own))
    return found


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure for every ablation."""
    found = find_ablations(contents.records)
    for index, ablation in enumerate(found):
        yield forced(ablation, numbered("ablation", index, len(found)))


def forced(ablation: Ablation, key: str = "ablation") -> Figure:
    """Base, forced and other rule against sparsity; the gain of forcing is written out."""
    measure = measure_of(ablation.records)
    found = curves(ablation.records, lambda record: _value(record, measure))
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


def gains(ablation: Ablation) -> Iterator[str]:
    """For every setting, what forcing gains or costs, in plain words."""
    measure = measure_of(ablation.records)
    found = curves(ablation.records, lambda record: _value(record, measure))
    for key, rules in found.items():
        base = {p.sparsity: p.mean for p in rules.get(ablation.base, ())}
        changes = {
            p.sparsity: p.mean - base[p.sparsity]
            for p in rules.get(ablation.forced, ())
            if p.sparsity in base
        }
        if not changes:
            continue
        better = sum(change > 0 for change in changes.values())
        best = max(changes, key=lambda s: changes[s])
        worst = min(changes, key=lambda s: changes[s])
        yield (
            f"{setting_title(key, found)}: {ablation.forced} instead of {ablation.base} raises "
            f"{measure} at {better} of {len(changes)} sparsities, between "
            f"{points(changes[worst])} (at {percent(worst)} sparsity) and "
            f"{points(changes[best])} (at {percent(best)})."
        )


def _value(record: Record, measure: Measure) -> float | None:
    return record.top1_repaired if measure == "accuracy" else record.agreement
