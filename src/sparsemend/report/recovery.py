"""Recovery against sparsity, and the transition that it shows, for every setting of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from sparsemend.report._contents import Contents
from sparsemend.report._figure import (
    Area,
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
from sparsemend.report._palette import series_style
from sparsemend.report._scale import Categories, Linear, Remaining, sparsity_scale
from sparsemend.report._series import (
    Curve,
    Setting,
    by_midpoint,
    curves,
    measure_of,
    setting,
    setting_title,
    spread_text,
    stays_above,
    transitions_of,
)
from sparsemend.report._text import NBSP, percent, tenths
from sparsemend.sweep import Lead, Measure, Record, Spread, Transition

# The row that shows which rule recovers most.
_AHEAD = "ahead"
# The band of the transition, and its middle (method, section 6).
HIGH, HALF, LOW = 0.8, 0.5, 0.2
# Fewer sparsities make no curve; the matrix of rules and repairs shows them better.
FEWEST = 4
# Labels at the right edge need this much room.
WIDTH, RIGHT = 320.0, 100.0
_HEIGHT, _ROW = 190.0, 18.0


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where the sweep has curves."""
    if has_curves(contents.records):
        yield recovery(contents.records, contents.transitions, contents.leads)


def has_curves(records: Sequence[Record]) -> bool:
    """Whether some rule was run at enough sparsities to draw a curve."""
    found = curves(records, lambda record: record.agreement)
    return any(len(curve) >= FEWEST for rules in found.values() for curve in rules.values())


def recovery(
    records: Sequence[Record], transitions: Sequence[Transition], leads: Sequence[Lead] = ()
) -> Figure:
    """Curves with bands over seeds, one plate a setting, and each rule's transition below."""
    measure = measure_of(records)
    found = curves(records, lambda record: record.recovery(measure))
    style = series_style(rule for rules in found.values() for rule in rules)
    plates = []
    for key, rules in found.items():
        shown = by_midpoint(transitions_of(transitions, key, measure).values(), rules)
        ahead = [lead for lead in leads if setting(lead) == key and lead.measure == measure]
        plates.append(_plate(setting_title(key, found), rules, shown, ahead, style, measure))
    what = "accuracy above chance" if measure == "accuracy" else "agreement above chance"
    return Figure(
        "recovery",
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
        Box(x.low, x.high, LOW, HIGH, "band"),
        Line(((x.low, HALF), (x.high, HALF)), "axis", 1, "4 3"),
    ]
    for transition in transitions:
        middle = transition.midpoint.mean
        if middle is not None:
            colour = style[transition.rule][0]
            marks.append(Line(((middle, HALF), (middle, y.low)), colour, 1, "1 3"))
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


def curve_marks(
    rule: str, curve: Curve, colour: str, shape: str, what: str, *, dash: str = ""
) -> Iterator[Mark]:
    """A curve with its band over seeds and a dot with a tip at every sparsity."""
    x = tuple(p.sparsity for p in curve)
    if any(p.std > 0 for p in curve):
        low, high = (tuple(p.mean + sign * p.std for p in curve) for sign in (-1, 1))
        yield Area(x, low, high, colour)
    yield Line(tuple((p.sparsity, p.mean) for p in curve), colour, dash=dash)
    radius = 3.2 if len(curve) < 24 else 2.4
    dots = (
        Dot(
            p.sparsity,
            p.mean,
            colour,
            shape,
            radius,
            tip=f"sparsity {percent(p.sparsity, 4)}: {what} {spread_text(p)}",
        )
        for p in curve
    )
    yield Group(rule, tuple(dots))


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
            side = "above" if stays_above(curve, HALF) else "below"
            marks.append(Label(x.high, row, f"always {side} half", "mute", dx=8))
            continue
        marks.append(Line(((middle, -0.5), (middle, row)), colour, 1, "1 3"))
        marks.append(Group(transition.rule, (Dot(middle, row, colour, shape, 5, tip=tip),)))
        marks.append(Label(x.high, row, _spread(transition.midpoint), colour, dx=8, bold=True))
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
        return "outside of this sweep" if spread.mean is None else _spread(spread)

    seeds = f" ({middle.count} seeds)" if middle.count > 1 else ""
    return (
        f"half recovered at {place(middle)}{seeds}\n80 % recovered until {place(start)}\n"
        f"20 % recovered until {place(end)}"
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
        if t.measure != measure:
            continue
        for name, level, spread in (
            ("start of transition", HIGH, t.start),
            ("midpoint of transition", HALF, t.midpoint),
            ("end of transition", LOW, t.end),
        ):
            what = (t.network, t.mask, t.repair, t.rule)
            rows.append((*what, name, spread.mean, level, spread.std, spread.count))
    for lead in leads:
        if lead.measure == measure:
            what = (lead.network, lead.mask, lead.repair, lead.rule)
            rows.append((*what, "ahead from", lead.start, None, None, None))
            rows.append((*what, "ahead to", lead.end, None, None, None))
    return Table(
        ("network", "mask", "repair", "rule", "what", "sparsity", "recovery", "std", "seeds"),
        tuple(rows),
    )
