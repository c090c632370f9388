"""The five claims of the paper and one of ours, judged on every network from its cells.

A claim is a difference in top-1 that it says is above 0. It *holds* where the mean difference is
above both chance (p ≤ 0.05) and the standard error that the test images alone leave, *partly*
where it is above one of them, and is *not here* where it is above neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from benchmarks.study.cells import Pair, Setting, Study, pairs
from benchmarks.study.effect import HOLDS, NOT_HERE, NOT_MEASURED, PARTLY, Effect, effect
from sparsemend.sweeps import Record
from sparsemend.sweeps.transition import grouped

RR = "rr"
# Rules that do not look at what a repair can mend; the paper compares RR with these.
OTHERS = ("erk", "lamp", "global", "uniform")
# The claims of one network are made for it alone.
FINE = "cifar100_resnet18"
_SLACK = 1e-9


@dataclass(frozen=True)
class Judgement:
    """What the cells of one network, mask and repair say of a claim.

    Attributes
    ----------
    compared
        Which difference it is about.
    verdict
        ``"holds"``, ``"partly"``, ``"not here"`` or ``"not measured"``.
    effect
        The difference; None where no pair was computed.
    beside
        The difference that it is to exceed, where the claim is about two.
    """

    compared: str
    verdict: str
    effect: Effect | None
    beside: Effect | None = None


Judge = Callable[[Sequence[Record]], Judgement]


@dataclass(frozen=True)
class Claim:
    """One line of the table.

    Attributes
    ----------
    text
        In words.
    judge
        How it is judged.
    networks
        Where the paper says it; everywhere by default.
    """

    text: str
    judge: Judge
    networks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """A claim on one network under one mask and repair."""

    claim: str
    setting: Setting
    judgement: Judgement


def findings(study: Study) -> Iterator[Finding]:
    """Every claim for every network, mask and repair that has cells."""
    settings = grouped(study.records, "network", "mask", "repair")
    for claim in CLAIMS:
        for (network, mask, repair), records in settings.items():
            if not claim.networks or network in claim.networks:
                yield Finding(claim.text, (network, mask, repair), claim.judge(records))


def _ahead(ours: str, theirs: str, low: float = 0.0, high: float = 1.0) -> Judge:
    """One rule over another between two sparsities."""

    def judge(records: Sequence[Record]) -> Judgement:
        found = pairs(records, ours, theirs)
        between = effect([p for p in found if low - _SLACK <= p.sparsity <= high + _SLACK])
        return Judgement(f"{ours} − {theirs}", _verdict(between), between)

    return judge


def _near_the_transition(theirs: str) -> Judge:
    """RR over another rule within the transition, which is to be more than outside of it."""

    def judge(records: Sequence[Record]) -> Judgement:
        found = list(pairs(records, RR, theirs))
        inside = effect([pair for pair in found if pair.inside])
        outside = effect([pair for pair in found if not pair.inside])
        verdict = _verdict(inside)
        if inside is not None and verdict in (HOLDS, PARTLY):
            if _verdict(outside) == NOT_MEASURED:
                verdict = PARTLY
            elif outside is not None and outside.mean >= inside.mean:
                verdict = NOT_HERE
        return Judgement(f"{RR} − {theirs} inside", verdict, inside, outside)

    return judge


def _somewhere_behind(records: Sequence[Record]) -> Judgement:
    """Where one of the others is furthest ahead of RR, over the seeds of one sparsity.

    The furthest of many is found by looking for it, so the claim holds from twice the standard
    error of the test images on, and partly from once.
    """
    found: list[Judgement] = []
    for rule in OTHERS:
        places: dict[float, list[Pair]] = {}
        for pair in pairs(records, rule, RR):
            places.setdefault(pair.sparsity, []).append(pair)
        for sparsity, own in places.items():
            if (over := effect(own)) is not None:
                verdict = PARTLY if over.mean > over.sampling_error else NOT_HERE
                if over.mean > 2 * over.sampling_error:
                    verdict = HOLDS
                found.append(Judgement(f"{rule} − {RR} at {sparsity:g}", verdict, over))
    nothing = Judgement(f"another rule − {RR}", NOT_MEASURED, None)
    return max(found, key=lambda each: each.effect.mean if each.effect else 0, default=nothing)


def _over_the_best(ours: str) -> Judge:
    """A rule over that one of the others which is best on average."""

    def judge(records: Sequence[Record]) -> Judgement:
        found = [_ahead(ours, rule)(records) for rule in OTHERS]
        known = [each for each in found if each.verdict != NOT_MEASURED]
        nothing = Judgement(f"{ours} − another rule", NOT_MEASURED, None)
        return min(known, key=lambda each: each.effect.mean if each.effect else 0, default=nothing)

    return judge


def _verdict(found: Effect | None) -> str:
    return NOT_MEASURED if found is None else found.verdict


CLAIMS = (
    Claim("1 RR is not ahead everywhere", _somewhere_behind),
    Claim("2 RR leads ERK, near the transition most", _near_the_transition("erk")),
    Claim("2 RR leads LAMP, near the transition most", _near_the_transition("lamp")),
    Claim("3 RR leads ERK from 94 to 95.5 %", _ahead(RR, "erk", 0.94, 0.955), (FINE,)),
    Claim("3 RR leads LAMP from 95 to 95.5 %", _ahead(RR, "lamp", 0.95, 0.955), (FINE,)),
    Claim("4 ERK gains by LAMP's projections", _ahead("erk[projection=lamp]", "erk")),
    Claim("4 ERK gains by RR's projections", _ahead("erk[projection=rr]", "erk")),
    Claim("4 ERK gains by global's projections", _ahead("erk[projection=global]", "erk")),
    Claim("5 RR leads the best rule without repair", _over_the_best(RR)),
    Claim("Beyond: branches leads the best such rule", _over_the_best("branches")),
)
