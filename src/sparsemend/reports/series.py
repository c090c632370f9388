"""Records of a sweep by budget, and as curves over sparsity: mean and deviation over seeds."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sparsemend.reports.drawing.text import percent
from sparsemend.sweeps import Cell, Lead, Measure, Record, Transition
from sparsemend.targets import KINDS, Kind, Target

Setting = tuple[str, str, str]
# Network, and of sparsity and target the one that there is.
Budget = tuple[str, float | None, str]
Pair = tuple[Transition, Transition]
# Fewer sparsities make no curve; the matrix of rules and repairs shows them better.
_FEWEST, _FEWEST_TARGETS = 4, 3


@dataclass(frozen=True)
class Point:
    """One sparsity of a curve.

    Attributes
    ----------
    sparsity
        Fraction removed, as asked for.
    mean, std
        Over calibration seeds; the sample standard deviation is 0 for one seed.
    count
        Number of seeds.
    """

    sparsity: float
    mean: float
    std: float
    count: int


Curve = tuple[Point, ...]


@dataclass(frozen=True)
class Priced:
    """What a rule gives for one budget.

    Attributes
    ----------
    budget
        What was asked for.
    cost
        What it came to, in units of the kind of cost, mean over seeds.
    mean, std, count
        Of accuracy or agreement, as of a point.
    """

    budget: Budget
    cost: float
    mean: float
    std: float
    count: int


def setting(of: Cell | Transition | Lead) -> Setting:
    """Network, mask and repair: what curves of one panel have in common."""
    return of.network, of.mask, of.repair


def setting_title(key: Setting, settings: Iterable[Setting]) -> str:
    """Network and repair; the mask only where several are compared."""
    network, mask, repair = key
    masks = {other[1] for other in settings if other[0] == network and other[2] == repair}
    return f"{network}, repair {repair}{f', mask {mask}' if len(masks) > 1 else ''}"


def curves(
    records: Sequence[Record], value: Callable[[Record], float | None]
) -> dict[Setting, dict[str, Curve]]:
    """Setting → rule → curve of what is not None, by ascending sparsity; targets are left out.

    Settings and rules keep the order in which the records name them.
    """
    found: dict[Setting, dict[str, dict[float, list[float]]]] = {}
    for record in records:
        number, sparsity = value(record), record.cell.sparsity
        if number is not None and sparsity is not None:
            rules = found.setdefault(setting(record.cell), {})
            by_sparsity = rules.setdefault(record.cell.rule, {})
            by_sparsity.setdefault(sparsity, []).append(number)
    return {
        key: {
            rule: tuple(_point(s, values) for s, values in sorted(by_sparsity.items()))
            for rule, by_sparsity in rules.items()
        }
        for key, rules in found.items()
    }


def by_budget(records: Iterable[Record]) -> dict[Budget, list[Record]]:
    """Records by network and budget, in the order of their first."""
    found: dict[Budget, list[Record]] = {}
    for record in records:
        found.setdefault(_budget_of(record.cell), []).append(record)
    return found


def _budget_of(cell: Cell) -> Budget:
    return cell.network, cell.sparsity, cell.target


def budget_text(budget: Budget) -> str:
    """What may be kept, in words."""
    _, sparsity, target = budget
    return Target.parse(target).told(None) if sparsity is None else f"{percent(sparsity)} sparsity"


def without_curves(records: Sequence[Record]) -> tuple[Record, ...]:
    """Those of sparsities, and those of targets, where there are too few for curves."""
    sparsities = [record for record in records if not record.cell.target]
    targets = [record for record in records if record.cell.target]
    drawn = has_curves(sparsities), has_costs(targets)
    return (*(() if drawn[0] else sparsities), *(() if drawn[1] else targets))


def has_costs(records: Iterable[Record]) -> bool:
    """Whether some rule was run for enough targets to draw a curve."""
    targets: dict[tuple[Setting, str], set[str]] = {}
    for record in records:
        key = (setting(record.cell), record.cell.rule)
        targets.setdefault(key, set()).add(record.cell.target)
    return any(len(found - {""}) >= _FEWEST_TARGETS for found in targets.values())


def cost_curves(
    records: Sequence[Record],
) -> dict[tuple[Setting, Kind], dict[str, tuple[Priced, ...]]]:
    """(setting, kind of cost) → rule → what every budget gives, by ascending cost.

    Kinds of which no rule has two costs are left out.
    """
    measure = measure_of(records)
    found: dict[tuple[Setting, Kind], dict[str, dict[Budget, list[tuple[float, float]]]]] = {}
    for record, kind in itertools.product(records, KINDS.values()):
        value, cost, cell = measured(record, measure), _cost(record, kind), record.cell
        if value is not None and cost is not None:
            rules = found.setdefault((setting(cell), kind), {})
            pairs = rules.setdefault(cell.rule, {}).setdefault(_budget_of(cell), [])
            pairs.append((cost / kind.unit, value))
    return {
        plate: {
            rule: tuple(sorted(itertools.starmap(_priced, budgets.items()), key=lambda p: p.cost))
            for rule, budgets in rules.items()
        }
        for plate, rules in found.items()
        if any(len(budgets) > 1 for budgets in rules.values())
    }


def _cost(record: Record, kind: Kind) -> float | None:
    """What a network costs, where that is known and anything at all."""
    target = record.cell.parsed_target
    if kind.measure is None:  # counted for every record
        return record.kept_multiplications or None
    return record.reached if target is not None and target.kind is kind else None


def _priced(budget: Budget, pairs: Sequence[tuple[float, float]]) -> Priced:
    costs, values = zip(*pairs, strict=True)
    return Priced(budget, statistics.fmean(costs), *_spread(values))


def has_curves(records: Sequence[Record]) -> bool:
    """Whether some rule was run at enough sparsities to draw a curve."""
    measure = measure_of(records)
    found = curves(records, lambda record: measured(record, measure))
    return any(len(curve) >= _FEWEST for rules in found.values() for curve in rules.values())


def by_measure(records: Iterable[Record]) -> list[tuple[Record, ...]]:
    """The records of networks with labels, and those of networks without; empty ones left out."""
    records = tuple(records)
    labelled = {r.cell.network for r in records if r.top1_repaired is not None}
    groups = (tuple(r for r in records if (r.cell.network in labelled) == k) for k in (True, False))
    return [group for group in groups if group]


def measure_of(records: Iterable[Record]) -> Measure:
    """Accuracy where there are labels, else agreement with the dense network."""
    labelled = any(record.top1_repaired is not None for record in records)
    return "accuracy" if labelled else "agreement"


def measured(record: Record, measure: Measure) -> float | None:
    """Accuracy after repair, or agreement with the dense network.

    For outputs that are no class scores, what their judge takes for the recovery of agreement.
    """
    if measure == "accuracy":
        return record.top1_repaired
    return record.recovered if record.agreement is None else record.agreement


def transitions_of(
    transitions: Iterable[Transition], key: Setting, measure: Measure
) -> dict[str, Transition]:
    """Rule → transition in one setting."""
    return {t.rule: t for t in transitions if setting(t) == key and t.measure == measure}


def by_midpoint(transitions: Iterable[Transition], curves: dict[str, Curve]) -> list[Transition]:
    """The latest transition first; one that lies beyond the sweep before all others."""

    def place(transition: Transition) -> float:
        if transition.midpoint.mean is not None:
            return transition.midpoint.mean
        return 2.0 if stays_above(curves.get(transition.rule, ()), 0.5) else -1.0

    return sorted(transitions, key=place, reverse=True)


def midpoint_pairs(transitions: Sequence[Transition]) -> list[Pair]:
    """By accuracy and by agreement, of every configuration with both midpoints."""
    by_agreement = {(*setting(t), t.rule): t for t in transitions if t.measure == "agreement"}
    pairs = (
        (t, by_agreement.get((*setting(t), t.rule)))
        for t in transitions
        if t.measure == "accuracy" and t.midpoint.mean is not None
    )
    return [(one, two) for one, two in pairs if two is not None and two.midpoint.mean is not None]


def stays_above(curve: Curve, level: float) -> bool:
    """Whether a curve's mean is above a level at its highest sparsity."""
    return bool(curve) and curve[-1].mean >= level


def _point(sparsity: float, values: Sequence[float]) -> Point:
    return Point(sparsity, *_spread(values))


def _spread(values: Sequence[float]) -> tuple[float, float, int]:
    """Mean, sample standard deviation (0 for one value), and number."""
    std = statistics.stdev(values) if len(values) > 1 else 0.0
    return statistics.fmean(values), std, len(values)
