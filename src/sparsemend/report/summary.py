"""What the figures say, in plain words, from their numbers alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from sparsemend.allocation import Allocation
from sparsemend.diagnosis import Diagnosis
from sparsemend.report._contents import Compression, Contents
from sparsemend.report._series import (
    Curve,
    Setting,
    by_midpoint,
    curves,
    measure_of,
    setting,
    setting_title,
    stays_above,
    transitions_of,
)
from sparsemend.report._text import NBSP, listed, number, percent, plural, shorten, tenths
from sparsemend.report.ablation import find_ablations, gains
from sparsemend.report.heatmap import shown_density
from sparsemend.report.labelfree import midpoint_pairs
from sparsemend.report.recovery import HALF, HIGH, LOW, has_curves
from sparsemend.sweep import Lead, Measure, Record, Transition


def sentences(contents: Contents) -> list[str]:
    """The summary of a report; its first sentence is the headline."""
    found: list[str] = []
    if contents.records:
        found += of_sweep(contents.records, contents.transitions, contents.leads)
    if contents.compression is not None:
        found += of_compression(contents.compression, contents.allocations)
    for name, diagnosis in contents.diagnoses.items():
        found += of_diagnosis(diagnosis, name if len(contents.diagnoses) > 1 else "")
    for ablation in find_ablations(contents.records):
        found += gains(ablation)
    return found


# A sweep


def of_sweep(
    records: Sequence[Record], transitions: Sequence[Transition], leads: Sequence[Lead] = ()
) -> Iterator[str]:
    """Who keeps half of the accuracy for longest, how steep the fall is, where RR leads."""
    if not has_curves(records):
        yield from _best_of_matrix(records)
        return
    measure = measure_of(records)
    found = curves(records, lambda record: record.recovery(measure))
    yield from _headline(found, transitions, measure)
    for key, rules in found.items():
        yield _last_to_fall(setting_title(key, found), key, rules, transitions, measure)
    widths = [
        t.end.mean - t.start.mean
        for t in transitions
        if t.measure == measure and t.end.mean is not None and t.start.mean is not None
    ]
    if widths:
        yield (
            f"The fall from {percent(HIGH)} to {percent(LOW)} recovery takes "
            f"{_range(100 * min(widths), 100 * max(widths))} points of sparsity."
        )
    for key, rules in found.items():
        own = [lead for lead in leads if setting(lead) == key and lead.measure == measure]
        if "rr" in rules and own:
            yield f"{setting_title(key, found)}: {_ahead('rr', own)}"
    yield from _label_free(transitions)
    seeds = {record.cell.seed for record in records}
    if len(seeds) > 1:
        moves = [t.midpoint.std for t in transitions if t.midpoint.std is not None]
        text = f"{len(seeds)} calibration seeds"
        if moves:
            text += f"; the midpoints' standard deviation is at most {tenths(max(moves))} points"
        yield f"{text}."
    else:
        yield "One calibration seed, so nothing here says how much chance moves the numbers."


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
        own = [t for t in known if t.network == network]
        if own:
            best = max(own, key=lambda t: t.midpoint.mean or 0.0)
            parts.append(
                f"{tenths(best.midpoint.mean or 0.0)}{NBSP}% sparsity on {network} "
                f"({best.rule}, {best.repair})"
            )
    yield f"Half of the {what} survives up to {listed(parts)}."


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
        if stays_above(rules[first.rule], HALF):
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


def _best_of_matrix(records: Sequence[Record]) -> Iterator[str]:
    """The best configuration at every sparsity."""
    measure = measure_of(records)
    found = curves(records, lambda r: r.top1_repaired if measure == "accuracy" else r.agreement)
    values = [
        (point.sparsity, point.mean, key, rule)
        for key, rules in found.items()
        for rule, curve in rules.items()
        for point in curve
    ]
    what = "top-1" if measure == "accuracy" else "agreement"
    for network in dict.fromkeys(key[0] for key in found):
        own = [value for value in values if value[2][0] == network]
        for sparsity in sorted({value[0] for value in own}, reverse=True):
            best = max((v for v in own if v[0] == sparsity), key=lambda v: v[1])
            yield (
                f"{network} at {percent(sparsity)} sparsity: best is rule {best[3]} with repair "
                f"{best[2][2]}, {percent(best[1])} {what}."
            )


# A compression


def of_compression(
    compression: Compression, allocations: Sequence[Allocation] = ()
) -> Iterator[str]:
    """What was lost and regained, what was chosen, and who got more than under ERK."""
    allocation = compression.allocation
    removed = f"{percent(allocation.sparsity, 4)} of {allocation.total:,} weights removed"
    same = (
        f"the sparse network chooses the dense one's class on {percent(compression.agreement)} of "
        f"{'unseen' if compression.heldout else 'the calibration'} inputs "
        f"(KL {number(compression.kl)} nats)"
    )
    if compression.top1_repaired is not None and compression.top1_dense is not None:
        text = f"{removed}: top-1 goes from {percent(compression.top1_dense)} to "
        text += percent(compression.top1_repaired)
        if compression.top1_pruned is not None:
            text += f" (before repair: {percent(compression.top1_pruned)})"
        yield f"{text}."
        yield f"Without any labels, {same}."
    else:
        yield f"{removed}: {same}."
    yield (
        f"Rule {compression.rule}, mask {compression.mask}, repair {compression.repair} "
        f"({compression.scope})"
        + (
            f", the closest of {len(compression.tried)} endings"
            if len(compression.tried) > 1
            else ""
        )
        + "."
    )
    erk = next((a for a in allocations if a.rule == "erk"), None)
    if erk is not None and allocation.rule != "erk" and erk.keys() == allocation.keys():
        yield from _against_erk(allocation, erk)
    if compression.added_biases:
        yield (
            f"{plural(len(compression.added_biases), 'layer')} got a bias parameter that the "
            f"original lacks: {_some(compression.added_biases)}."
        )


def _against_erk(allocation: Allocation, erk: Allocation) -> Iterator[str]:
    ratio = {n: allocation.densities[n] / erk.densities[n] for n in allocation if erk[n]}
    more = sorted((n for n in ratio if ratio[n] > 1.05), key=lambda n: -ratio[n])[:3]
    less = sorted((n for n in ratio if ratio[n] < 1 / 1.05), key=lambda n: ratio[n])[:3]
    parts = []
    if more:
        parts.append(
            f"most more to {listed([f'{_name(n)} (×{number(ratio[n], 2)})' for n in more])}"
        )
    if less:
        parts.append(
            f"most less to {listed([f'{_name(n)} (×{number(ratio[n], 2)})' for n in less])}"
        )
    if parts:
        yield f"Compared with ERK, rule {allocation.rule} gives {', and '.join(parts)}."


# A diagnosis


def of_diagnosis(diagnosis: Diagnosis, name: str = "") -> Iterator[str]:
    """How much is repaired at about 10 % density, who is hurt, and where repair makes it worse."""
    k = shown_density(diagnosis)
    raw, left, rr = (a[:, k] for a in (diagnosis.raw, diagnosis.residual, diagnosis.rr))
    at = f"{percent(diagnosis.densities[k], 2)} density"
    start = f"{name}: at" if name else "At"
    total = float(raw.sum())
    if total == 0:
        yield f"{start} {at} nothing is damaged."
        return
    change = 1 - float(left.sum()) / total
    undone = f"undoes {percent(change, 2)}" if change >= 0 else f"adds {percent(-change, 2)}"
    yield (
        f"{start} {at}, repair {diagnosis.repair} {undone} of the damage: a layer's "
        f"error goes from {number(float(raw.mean()), 2)} to {number(float(left.mean()), 2)} "
        f"of its signal's variance on average."
    )
    layers = diagnosis.layers
    worst = np.argsort(-left, kind="stable")[:3]
    hurt = listed([_with(layers[i], left[i]) for i in worst])
    yield f"Largest error left, over the signal's variance: {hurt}."
    defined = np.flatnonzero(np.isfinite(rr))
    if defined.size > 3:
        order = defined[np.argsort(rr[defined], kind="stable")]
        good = [_with(layers[i], rr[i]) for i in order[:3]]
        bad = [_with(layers[i], rr[i]) for i in order[::-1][:3]]
        yield f"Most repairable (lowest RR there): {listed(good)}; least: {listed(bad)}."
    yield _made_worse(diagnosis)
    if diagnosis.left_out:
        count = sum(diagnosis.left_out.values())
        yield (
            f"{plural(count, 'channel')} without variance in {_some(tuple(diagnosis.left_out))} "
            f"{'is' if count == 1 else 'are'} left out."
        )


def _made_worse(diagnosis: Diagnosis) -> str:
    worse = np.nan_to_num(diagnosis.rr, nan=0.0) > 1
    if not worse.any():
        return "Nowhere does the repair make the damage worse (RR never exceeds 1)."
    densest = diagnosis.densities[np.flatnonzero(worse.any(axis=0))[-1]]
    layers = [n for n, row in zip(diagnosis.layers, worse, strict=True) if row.any()]
    return (
        f"The repair makes the damage worse (RR above 1) in {plural(len(layers), 'layer')} "
        f"({_some(layers)}), at densities up to {percent(densest, 2)}."
    )


def _with(layer: str, value: float) -> str:
    return f"{_name(layer)} ({number(float(value), 2)})"


def _name(layer: str) -> str:
    return shorten(layer, 40)


def _some(names: Sequence[str]) -> str:
    shown = [_name(name) for name in names[:3]]
    rest = len(names) - len(shown)
    return listed([*shown, f"{rest} more"]) if rest else listed(shown)


def _range(low: float, high: float) -> str:
    one, two = f"{low:.1f}", f"{high:.1f}"
    return one if one == two else f"{one} to {two}"
