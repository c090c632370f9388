"""The figures of the page that no report of a sweep has: the claims, and who leads whom."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks.study.cells import Pair, Setting, Study, pairs
from benchmarks.study.claims import OTHERS, RR, Finding
from benchmarks.study.effect import HOLDS, NOT_HERE, NOT_MEASURED, PARTLY, Effect
from sparsemend.reports.drawing.figure import (
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
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Categories, Linear, sparsity_scale
from sparsemend.reports.drawing.text import percent
from sparsemend.reports.series import setting_title
from sparsemend.sweeps import Transition
from sparsemend.sweeps.transition import grouped, spread

_COLOURS = {HOLDS: "green", PARTLY: "orange", NOT_HERE: "red", NOT_MEASURED: "grey"}
# Of the differences drawn: the plain rules, and the other reading of RR as an allocation.
_BELOW = (*OTHERS, "rr-density")
PAIR = (
    *("network", "mask", "repair", "sparsity", "seed", "rule", "other"),
    *("top-1 of the rule", "top-1 of the other", "difference in points"),
    *("standard error of the test images", "mean recovery", "stores"),
)


def claims(found: Sequence[Finding], study: Study) -> Figure:
    """Claims down, networks across, one plate for each mask and repair."""
    places = dict.fromkeys(finding.setting[1:] for finding in found)
    return Figure(
        "claims",
        "The paper's claims",
        "Mean difference in points of top-1 ± standard deviation over the pairs of cells that "
        "differ in the rule alone, and their number. A claim holds where the difference is above "
        "0 by a paired t-test (p ≤ 0.05) and above the standard error of the test images; partly "
        "where it is above one of both; not here where it is above neither. Claim 1 is about the "
        "sparsity at which another rule is furthest ahead: it holds from twice that error on, "
        "partly from once. Claim 2 asks for more inside of the transition (recovery from 80 to "
        "20 %) than outside, and holds at most partly where nothing outside is measured.",
        tuple(_claims_plate(place, found) for place in places),
        _claims_table(found, study),
    )


def _claims_plate(place: tuple[str, str], found: Sequence[Finding]) -> Plate:
    own = [finding for finding in found if finding.setting[1:] == place]
    rows = list(dict.fromkeys(finding.claim for finding in own))
    networks = list(dict.fromkeys(finding.setting[0] for finding in own))
    marks = [
        _claims_mark(finding, networks.index(finding.setting[0]), rows.index(finding.claim))
        for finding in own
    ]
    panel = Panel(
        Axis(Categories(tuple(networks)), grid=False),
        Axis(Categories(tuple(rows), longest=60), grid=False),
        tuple(marks),
        150.0 * len(networks),
        38.0 * len(rows),
        right=80.0,
    )
    title = f"{place[1]}, {place[0]}"
    return Plate(((panel,),), f"Claims by networks, repair and mask {title}", title)


def _claims_mark(finding: Finding, column: int, row: int) -> Group:
    judged = finding.judgement
    box = (column - 0.5, column + 0.5, row - 0.5, row + 0.5)
    tip = f"{judged.compared}: {judged.verdict}"
    marks: list[Box | Label] = [Box(*box, _COLOURS[judged.verdict], 0.22, gap=1, tip=tip)]
    marks.append(Label(column, row, judged.verdict, "ink", "middle", dy=-7, bold=True))
    if judged.effect is not None:
        marks.append(Label(column, row, effect_text(judged.effect), "ink", "middle", dy=9))
    return Group(f"{finding.claim}, {finding.setting[0]}", tuple(marks))


def effect_text(found: Effect) -> str:
    """Such as +7.8 ± 0.9 (4)."""
    std = "" if found.std is None else f" ± {found.std:.1f}"
    return f"{found.mean:+.1f}{std} ({len(found.pairs)})".replace("-", "−")


def _claims_table(found: Sequence[Finding], study: Study) -> Table:
    rows: list[tuple[Value, ...]] = []
    for finding in found:
        judged = finding.judgement
        numbers: list[Value] = [None] * 7
        if judged.effect is not None:
            at = [pair.sparsity for pair in judged.effect.pairs]
            numbers = [
                *(judged.effect.mean, judged.effect.std, len(at), judged.effect.p),
                *(judged.effect.sampling_error, min(at), max(at)),
            ]
        beside: list[Value] = [None] * 3
        if judged.beside is not None:
            beside = [judged.beside.mean, judged.beside.std, len(judged.beside.pairs)]
        what = (finding.claim, *finding.setting, judged.verdict, judged.compared)
        rows.append((*what, *numbers, *beside, _command(finding, study)))
    return Table(
        (
            *("claim", "network", "mask", "repair", "verdict", "difference", "mean", "std"),
            *("pairs", "p", "standard error of the test images", "from", "to"),
            *("mean outside", "std outside", "pairs outside", "command"),
        ),
        tuple(rows),
    )


def _command(finding: Finding, study: Study) -> str:
    """What computes the cells of a finding again."""
    found = (finding.judgement.effect, finding.judgement.beside)
    used = (pair for each in found if each is not None for pair in each.pairs)
    stores = dict.fromkeys(store for pair in used for store in stores_of(pair, study))
    return f"sh docs/results/run.sh DATA STORES {' '.join(stores)}" if stores else ""


def lead(study: Study, transitions: Iterable[Transition]) -> Figure | None:
    """RR over every other rule against sparsity; None where no two rules share a cell."""
    bands = {
        (t.network, t.mask, t.repair): (t.start.mean, t.end.mean)
        for t in transitions
        if t.rule == RR and t.measure == "accuracy"
    }
    found = {
        setting: {rule: list(pairs(records, RR, rule)) for rule in _BELOW}
        for setting, records in grouped(study.records, "network", "mask", "repair").items()
    }
    shown: dict[Setting, dict[str, list[Pair]]] = {
        (network, mask, repair): {rule: own for rule, own in rules.items() if own}
        for (network, mask, repair), rules in found.items()
        if any(rules.values())
    }
    if not shown:
        return None
    style = series_style(_BELOW)
    return Figure(
        "lead",
        "RR over the other rules",
        "Top-1 with RR less top-1 with the other rule, in points, mean over seeds. Dark: within "
        "two standard errors of the test images, taken as independent, of no difference. Light: "
        "where RR recovers 80 to 20 %.",
        tuple(
            _lead_plate(setting_title(setting, shown), rules, bands.get(setting), style)
            for setting, rules in shown.items()
        ),
        Table(
            PAIR,
            tuple(
                pair_row(pair, study)
                for rules in shown.values()
                for own in rules.values()
                for pair in own
            ),
        ),
        columns=2,
    )


def _lead_plate(
    title: str,
    rules: dict[str, list[Pair]],
    band: tuple[float | None, float | None] | None,
    style: dict[str, tuple[str, str]],
) -> Plate:
    x = sparsity_scale([pair.sparsity for own in rules.values() for pair in own])
    curves = {rule: list(_means(own)) for rule, own in rules.items()}
    chance = _chance(pair for own in rules.values() for pair in own)
    values = [*(mean for curve in curves.values() for _, mean in curve), *chance.values()]
    y = Linear(min(*values, -max(chance.values())), max(values))
    marks: list[Mark] = []
    if band is not None:
        start, end = band
        marks.append(Box(start or x.low, end or x.high, y.low, y.high, "band"))
    low, high = (tuple(sign * error for error in chance.values()) for sign in (-1, 1))
    marks.append(Area(tuple(chance), low, high, "grey", 0.2))
    marks.append(Line(((x.low, 0.0), (x.high, 0.0)), "axis", 1, "4 3"))
    for rule, curve in curves.items():
        colour, shape = style[rule]
        marks.append(Line(tuple(curve), colour))
        dots = (
            Dot(s, m, colour, shape, 3.2, tip=f"sparsity {percent(s, 4)}: {m:+.2f} points")
            for s, m in curve
        )
        marks.append(Group(f"over {rule}", tuple(dots)))
    for place, rule in enumerate(curves):
        text = f"over {rule}"
        marks.append(
            Label(x.high, y.high, text, style[rule][0], dx=8, dy=10 + 17 * place, bold=True)
        )
    panel = Panel(
        Axis(x, "sparsity: weights removed from the network"),
        Axis(y, "points of top-1"),
        tuple(marks),
        320.0,
        200.0,
        right=120.0,
    )
    return Plate(((panel,),), f"RR over the other rules against sparsity, {title}", title)


def _means(own: Sequence[Pair]) -> Iterator[tuple[float, float]]:
    """Sparsity and mean difference over seeds."""
    for sparsity in dict.fromkeys(pair.sparsity for pair in own):
        here = (pair.difference for pair in own if pair.sparsity == sparsity)
        yield sparsity, spread(here).mean or 0.0


def _chance(own: Iterable[Pair]) -> dict[float, float]:
    """Sparsity → two standard errors of the test images, of the pair with the largest."""
    found: dict[float, float] = {}
    for pair in own:
        found[pair.sparsity] = max(found.get(pair.sparsity, 0.0), 2 * pair.sampling_error)
    return dict(sorted(found.items()))


def pair_row(pair: Pair, study: Study) -> tuple[Value, ...]:
    """The values of the columns ``PAIR``."""
    cell, other = pair.ours.cell, pair.theirs.cell
    return (
        *(*pair.setting, cell.sparsity, cell.seed, cell.rule, other.rule),
        *(pair.ours.top1_repaired, pair.theirs.top1_repaired, pair.difference),
        *(pair.sampling_error, pair.recovery, " ".join(stores_of(pair, study))),
    )


def stores_of(pair: Pair, study: Study) -> list[str]:
    """Which stores hold the two cells."""
    return list(dict.fromkeys(study.stores[each.cell] for each in (pair.ours, pair.theirs)))
