"""What a diagnosis shows: how much is repaired, who is hurt, and where repair makes it worse."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from sparsemend.diagnosis import Diagnosis
from sparsemend.reports.contents import shown_density
from sparsemend.reports.drawing.text import listed, number, percent, plural
from sparsemend.reports.words._names import some, with_value


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
    hurt = listed([with_value(layers[i], left[i]) for i in worst])
    yield f"Largest error left, over the signal's variance: {hurt}."
    defined = np.flatnonzero(np.isfinite(rr))
    if defined.size > 3:
        order = defined[np.argsort(rr[defined], kind="stable")]
        good = [with_value(layers[i], rr[i]) for i in order[:3]]
        bad = [with_value(layers[i], rr[i]) for i in order[::-1][:3]]
        yield f"Most repairable (lowest RR there): {listed(good)}; least: {listed(bad)}."
    yield _made_worse(diagnosis)
    if diagnosis.left_out:
        count = sum(diagnosis.left_out.values())
        yield (
            f"{plural(count, 'channel')} without variance in {some(tuple(diagnosis.left_out))} "
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
        f"({some(layers)}), at densities up to {percent(densest, 2)}."
    )
