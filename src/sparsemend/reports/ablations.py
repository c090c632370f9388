"""Ablations found in the records of a sweep, and what forcing layers gained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sparsemend.allocation import parse_forced
from sparsemend.reports.drawing.text import percent, points
from sparsemend.reports.series import (
    by_measure,
    curves,
    measure_of,
    measured,
    setting_title,
)
from sparsemend.sweeps import Record


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


def gains(ablation: Ablation) -> Iterator[str]:
    """For every setting, what forcing gains or costs, in plain words."""
    measure = measure_of(ablation.records)
    found = curves(ablation.records, lambda record: measured(record, measure))
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
