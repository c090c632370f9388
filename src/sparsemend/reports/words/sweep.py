"""What a sweep shows: who keeps half for longest, how steep the fall is, where RR is ahead."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from sparsemend.reports.drawing.text import NBSP, listed, percent, tenths
from sparsemend.reports.series import (
    Curve,
    Point,
    Setting,
    budget_text,
    by_budget,
    by_measure,
    by_midpoint,
    curves,
    has_curves,
    measure_of,
    measured,
    midpoint_pairs,
    setting,
    setting_title,
    stays_above,
    transitions_of,
)
from sparsemend.sweeps import Lead, Measure, Record, Transition
from sparsemend.sweeps.transition import END, MIDPOINT, START


def of_sweep(
    records: Sequence[Record], transitions: Sequence[Transition], leads: Sequence[Lead] = ()
) -> Iterator[str]:
    """The same for networks with labels and for those without."""
    for group in by_measure(records):
        yield from _of_group(group, transitions, leads)


def _of_group(
    records: Sequence[Record], transitions: Sequence[Transition], leads: Sequence[Lead]
) -> Iterator[str]:
    """Curves, or who is best; of targets always who is best."""
    if has_curves(records):
        yield from _of_curves(records, transitions, leads)
        yield from _best_of_each([record for record in records if record.cell.target])
    else:
        yield from _best_of_each(records)


def _of_curves(
    records: Sequence[Record], transitions: Sequence[Transition], leads: Sequence[Lead]
) -> Iterator[str]:
    """Who keeps half of the accuracy for longest, how steep the fall is, where RR leads."""
    measure = measure_of(records)
    found = curves(records, lambda record: record.recovery(measure))
    own = [t for t in transitions if setting(t) in found and t.measure == measure]
    yield from _headline(found, own, measure)
    for key, rules in found.items():
        yield _last_to_fall(setting_title(key, found), key, rules, own, measure)
    widths = [
        t.end.mean - t.start.mean
        for t in own
        if t.end.mean is not None and t.start.mean is not None
    ]
    if widths:
        yield (
            f"The fall from {percent(START)} to {percent(END)} recovery takes "
            f"{_range(100 * min(widths), 100 * max(widths))} points of sparsity."
        )
    for key, rules in found.items():
        ahead = [lead for lead in leads if setting(lead) == key and lead.measure == measure]
        if "rr" in rules and ahead:
            yield f"{setting_title(key, found)}: {_ahead('rr', ahead)}"
    yield from _label_free([t for t in transitions if setting(t) in found])
    yield from _seeds(found, own)


def _seeds(
    found: Mapping[Setting, Mapping[str, Curve]], transitions: Sequence[Transition]
) -> Iterator[str]:
    """How far seeds move the midpoints, and where they say nothing."""
    seeds = {
        key: max(point.count for curve in rules.values() for point in curve)
        for key, rules in found.items()
    }
    alone = [setting_title(key, found) for key, count in seeds.items() if count == 1]
    if len(alone) < len(seeds):
        moves = [t.midpoint.std for t in transitions if t.midpoint.std is not None]
        text = f"Up to {max(seeds.values())} calibration seeds"
        if moves:
            text += f"; the midpoints' standard deviation is at most {tenths(max(moves))} points"
        yield f"{text}."
    if alone:
        where = f" ({'; '.join(alone)})" if len(alone) < len(seeds) else ""
        yield f"With one calibration seed{where}, nothing says how far chance moves the numbers."
    partly = [
        f"{t.rule} ({setting_title(setting(t), found)})"
        for t in transitions
        if 0 < t.midpoint.count < seeds[setting(t)]
        and t.midpoint.count < max(p.count for p in found[setting(t)][t.rule])
    ]
    if partly:
        yield (
            f"Not every seed crosses half within this sweep for {listed(partly)}; the midpoints "
            "there are of the seeds that do."
        )


def _headline(
    found: Mapping[Setting, Mapping[str, Curve]],
    transitions: Sequence[Transition],
    measure: Measure,
) -> Iterator[str]:
    """The latest midpoint of every network, where several settings would need several lines."""
    networks = dict.fromkeys(network for network, _, _ in found)
    known = [t for t in transitions if t.measure == measure and t.midpoint.mean is not None]
    if len(found) == 1 or not known:
        return
    what = "accuracy" if measure == "accuracy" else "agreement with the dense network"
    parts = []
    for network in networks:
        latest = [
            (t.midpoint.mean, f"up to {tenths(t.midpoint.mean)}{NBSP}%", t.rule, t.repair)
            for t in known
            if t.network == network and t.midpoint.mean is not None
        ]
        latest += [
            (ends.sparsity, f"beyond {percent(ends.sparsity)}", rule, repair)
            for rule, repair, ends in _never_crossed(network, found)
        ]
        if latest:
            _, place, rule, repair = max(latest, key=lambda entry: entry[0])
            parts.append(f"{place} sparsity on {network} ({rule}, {repair})")
    yield f"Half of the {what} survives {listed(parts)}."


def _never_crossed(
    network: str, found: Mapping[Setting, Mapping[str, Curve]]
) -> Iterator[tuple[str, str, Point]]:
    """Rule, repair and last point of the curves that keep half to the end, the highest first."""
    ends = [
        (rule, repair, curve[-1])
        for (name, _, repair), rules in found.items()
        for rule, curve in rules.items()
        if name == network and stays_above(curve, MIDPOINT)
    ]
    yield from sorted(ends, key=lambda end: -end[2].mean)


def _last_to_fall(
    title: str,
    key: Setting,
    rules: Mapping[str, Curve],
    transitions: Sequence[Transition],
    measure: Measure,
) -> str:
    ordered = by_midpoint(transitions_of(transitions, key, measure).values(), dict(rules))
    what = "accuracy" if measure == "accuracy" else "agreement with the dense network"
    ends = [p.sparsity for curve in rules.values() for p in curve]
    swept = f"from {percent(min(ends))} to {percent(max(ends))} sparsity"
    if not ordered:
        return f"{title}: no transition was determined {swept}."
    first, last = ordered[0], ordered[-1]
    if first.midpoint.mean is None:
        if stays_above(rules[first.rule], MIDPOINT):
            never = [t.rule for t in ordered if t.midpoint.mean is None]
            crossed = [t for t in ordered if t.midpoint.mean is not None]
            text = f"{title}: the midpoint is not crossed in this sweep ({swept}) by "
            text += f"{listed(never)}, which keep more than half of their {what}"
            if crossed:
                text += f"; the first to fall is {_at(crossed[-1])}"
            return f"{text}."
        return (
            f"{title}: every rule has lost half of its {what} before this sweep starts ({swept})."
        )
    text = (
        f"{title}: half of the {what} is kept up to {percent(first.midpoint.mean)} sparsity "
        f"with rule {first.rule}"
    )
    if len(ordered) > 1:
        others = "not at all in this sweep with" if last.midpoint.mean is None else ""
        end = f"{others} {last.rule}" if others else f"only up to {_at(last)}"
        text += f", {end}"
    return f"{text}."


def _at(transition: Transition) -> str:
    return f"{percent(transition.midpoint.mean)} with {transition.rule}"


def _ahead(rule: str, leads: Sequence[Lead]) -> str:
    """Where a rule recovers most of all that were run."""
    own = [f"from {percent(x.start)} to {percent(x.end)}" for x in leads if x.rule == rule]
    if not own:
        return f"{rule} is nowhere ahead of all other rules in this sweep."
    return f"{rule} is ahead of all other rules {listed(own)} sparsity."


def _label_free(transitions: Sequence[Transition]) -> Iterator[str]:
    apart = [
        abs((one.midpoint.mean or 0.0) - (two.midpoint.mean or 0.0))
        for one, two in midpoint_pairs(transitions)
    ]
    if apart:
        yield (
            "Without labels, from agreement alone, the midpoint comes within "
            f"{tenths(max(apart))} points of sparsity of the labelled one "
            f"(on average {tenths(sum(apart) / len(apart))})."
        )


def _best_of_each(records: Sequence[Record]) -> Iterator[str]:
    """The best configuration at every budget, the highest sparsity of a network first."""
    measure = measure_of(records)
    what = "top-1" if measure == "accuracy" else "agreement"
    budgets = by_budget(records)
    networks = list(dict.fromkeys(network for network, _, _ in budgets))
    for budget in sorted(budgets, key=lambda b: (networks.index(b[0]), -(b[1] or 0))):
        values: dict[tuple[str, str, str], list[float]] = {}
        for record in budgets[budget]:
            value, cell = measured(record, measure), record.cell
            if value is not None:
                values.setdefault((cell.rule, cell.repair, cell.mask), []).append(value)
        if not values:
            continue
        means = {cell: statistics.fmean(found) for cell, found in values.items()}
        rule, repair, mask = max(means, key=lambda cell: means[cell])
        where = ", " if budget[2] else " at "
        yield (
            f"{budget[0]}{where}{budget_text(budget)}: best is rule {rule} with repair {repair}, "
            f"{percent(means[rule, repair, mask])} {what}."
        )


def _range(low: float, high: float) -> str:
    one, two = f"{low:.1f}", f"{high:.1f}"
    return one if one == two else f"{one} to {two}"
