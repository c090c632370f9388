"""Recovery against sparsity, and the transition that it shows, for every setting of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Axis,
    Box,
    Dot,
    Figure,
    Group,
    Label,
    Line,
    Mark,
    Panel,
    Plate,
    Table,
    Value,
)
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Categories, Linear, Remaining, sparsity_scale
from sparsemend.reports.drawing.text import NBSP, numbered, percent, tenths
from sparsemend.reports.figures._curves import RIGHT, WIDTH, curve_marks
from sparsemend.reports.series import (
    Curve,
    Setting,
    by_measure,
    by_midpoint,
    curves,
    has_curves,
    measure_of,
    setting,
    setting_title,
    stays_above,
    transitions_of,
)
from sparsemend.sweeps import Lead, Measure, Record, Spread, Transition
from sparsemend.sweeps.transition import END, MIDPOINT, START

# The row that shows which rule recovers most.
_AHEAD = "ahead"
_HEIGHT, _ROW = 190.0, 18.0


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where the sweep has curves; two where only some networks have labels."""
    found = [
        records
        for records in by_measure(contents.records)
        if has_curves(records) and any(r.recovery(measure_of(records)) is not None for r in records)
    ]
    for index, records in enumerate(found):
        key = numbered("recovery", index, len(found))
        yield recovery(records, contents.transitions, contents.leads, key)


def recovery(
    records: Sequence[Record],
    transitions: Sequence[Transition],
    leads: Sequence[Lead] = (),
    key: str = "recovery",
) -> Figure:
    """Curves with bands over seeds, one plate a setting, and each rule's transition below."""
    measure = measure_of(records)
    found = curves(records, lambda record: record.recovery(measure))
    style = series_style(rule for rules in found.values() for rule in rules)
    plates = []
    for place, rules in found.items():
        shown = by_midpoint(transitions_of(transitions, place, measure).values(), rules)
        ahead = [lead for lead in leads if setting(lead) == place and lead.measure == measure]
        plates.append(_plate(setting_title(place, found), rules, shown, ahead, style, measure))
    what = "accuracy above chance" if measure == "accuracy" else "agreement above chance"
    return Figure(
        key,
        "Recovery and its transition",
        f"Above: the share of the dense network's {what} that is left after repair, mean ± "
        "standard deviation over seeds; grey: 80 to 20 %. Below: where each rule crosses that "
        f"band, its midpoint (50 %) written out, and the colour of the rule that is {_AHEAD}. "
        "Each halving of the remaining weights is the same step to the right.",
        tuple(plates),
        _table(found, transitions, leads, measure),
        columns=2,
    )


def _plate(
    title: str,
    rules: Mapping[str, Curve],
    transitions: Sequence[Transition],
    leads: Sequence[Lead],
    style: Mapping[str, tuple[str, str]],
    measure: Measure,
) -> Plate:
    x = sparsity_scale([p.sparsity for curve in rules.values() for p in curve])
    values = [p.mean + s * p.std for c in rules.values() for p in c for s in (-1, 1)]
    y = Linear(min(0.0, *values), max(1.0, *values), as_percent=True)
    marks: list[Mark] = [
        Box(x.low, x.high, END, START, "band"),
        Line(((x.low, MIDPOINT), (x.high, MIDPOINT)), "axis", 1, "4 3"),
    ]
    for transition in transitions:
        middle = transition.midpoint.mean
        if middle is not None:
            colour = style[transition.rule][0]
            marks.append(Line(((middle, MIDPOINT), (middle, y.low)), colour, 1, "1 3"))
    for rule, curve in rules.items():
        marks.extend(curve_marks(rule, curve, *style[rule], f"{measure} recovered"))
    above = Panel(
        Axis(x, labels=not transitions, title="" if transitions else "sparsity"),
        Axis(y, f"recovery of {measure}"),
        tuple(marks),
        WIDTH,
        _HEIGHT,
        right=RIGHT,
    )
    described = f"Recovery of {measure} against sparsity, {title}"
    if not transitions:
        return Plate(((above,),), described, title)
    return Plate(((above,), (_transitions(x, rules, transitions, leads, style),)), described, title)


def _transitions(
    x: Remaining,
    rules: Mapping[str, Curve],
    transitions: Sequence[Transition],
    leads: Sequence[Lead],
    style: Mapping[str, tuple[str, str]],
) -> Panel:
    names, marks = [t.rule for t in transitions], list[Mark]()
    inks = [style[name][0] for name in names]
    if leads:
        row = len(names)
        names.append(_AHEAD)
        inks.append("mute")
        for lead in leads:
            tip = f"{lead.rule} recovers most from {percent(lead.start)} to {percent(lead.end)}"
            colour = style[lead.rule][0]
            marks.append(Box(lead.start, lead.end, row - 0.3, row + 0.3, colour, tip=tip))
    for row, transition in enumerate(transitions):
        colour, shape = style[transition.rule]
        curve = rules.get(transition.rule, ())
        middle, start, end = (s.mean for s in _spreads(transition))
        tip = _tip(transition)
        if start is not None or end is not None or middle is not None:
            # An end that lies outside of the sweep runs out dashed to the edge.
            first = x.low if start is None else start
            last = x.high if end is None else end
            dash = "" if start is not None and end is not None else "5 3"
            marks.append(Line(((first, row), (last, row)), colour, 4, dash))
        if middle is None:
            if curve:  # the midpoint lies beyond the sweep
                above = stays_above(curve, MIDPOINT)
                bound = curve[-1 if above else 0].sparsity
                text = f"{'>' if above else '<'} {percent(bound)}"
                marks.append(Label(x.high, row, text, "mute", dx=8))
            continue
        marks.append(Line(((middle, -0.5), (middle, row)), colour, 1, "1 3"))
        marks.append(Group(transition.rule, (Dot(middle, row, colour, shape, 5, tip=tip),)))
        text = _spread(transition.midpoint)
        seeds = max((p.count for p in curve), default=0)
        if transition.midpoint.count < seeds:  # the others' midpoints lie beyond the sweep
            text += f" ({transition.midpoint.count} of {seeds})"
        marks.append(Label(x.high, row, text, colour, dx=8, bold=True))
    return Panel(
        Axis(x, "sparsity: weights removed from the network"),
        Axis(Categories(tuple(names), longest=20), grid=False, inks=tuple(inks)),
        tuple(marks),
        WIDTH,
        _ROW * len(names),
        right=RIGHT,
    )


def _spreads(transition: Transition) -> tuple[Spread, Spread, Spread]:
    return transition.midpoint, transition.start, transition.end


def _spread(spread: Spread) -> str:
    """Such as 93.4 % ± 0.2."""
    text = tenths(spread.mean or 0.0)
    return f"{text}{NBSP}%" if spread.std is None else f"{text} ± {tenths(spread.std)}{NBSP}%"


def _tip(transition: Transition) -> str:
    middle, start, end = _spreads(transition)

    def place(spread: Spread) -> str:
        return "not within this sweep" if spread.mean is None else f"at {_spread(spread)}"

    seeds = f" ({middle.count} seeds)" if middle.count > 1 else ""
    return (
        f"80 % recovered {place(start)}\nhalf recovered {place(middle)}{seeds}\n"
        f"20 % recovered {place(end)}"
    )


def _table(
    found: Mapping[Setting, Mapping[str, Curve]],
    transitions: Sequence[Transition],
    leads: Sequence[Lead],
    measure: Measure,
) -> Table:
    rows: list[tuple[Value, ...]] = []
    for (network, mask, repair), rules in found.items():
        for rule, curve in rules.items():
            what = (network, mask, repair, rule)
            name = f"recovery of {measure}"
            rows += [(*what, name, p.sparsity, p.mean, p.std, p.count) for p in curve]
    for t in transitions:
        if t.measure != measure or setting(t) not in found:
            continue
        for name, level, spread in (
            ("start of transition", START, t.start),
            ("midpoint of transition", MIDPOINT, t.midpoint),
            ("end of transition", END, t.end),
        ):
            what = (t.network, t.mask, t.repair, t.rule)
            rows.append((*what, name, spread.mean, level, spread.std, spread.count))
    for lead in leads:
        if lead.measure == measure and setting(lead) in found:
            what = (lead.network, lead.mask, lead.repair, lead.rule)
            rows.append((*what, "ahead from", lead.start, None, None, None))
            rows.append((*what, "ahead to", lead.end, None, None, None))
    return Table(
        ("network", "mask", "repair", "rule", "what", "sparsity", "recovery", "std", "seeds"),
        tuple(rows),
    )
