"""What is worth doing in a time, one step after the other, and how long it may take.

Where there is the time, rule ``auto`` searches and repair ``best`` tries every ending. Training
pays more than a longer search does: where both fit, the search is one of the rules and their
mixtures, the best two of which are trained. Else a repair with the most promising rule comes
first, then with others, then every ending with the best of them, and a short distillation of that
at the end. Where not even one full repair fits, it is a quick one, with fewer inputs if need be,
or variances are matched instead. Nothing is done here: ``planning.py`` carries it out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sparsemend.allocation import RULES, Quota
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import count_inputs
from sparsemend.patterns import parse_pattern
from sparsemend.recipe import AUTO, Recipe
from sparsemend.recipe.defaults import REPAIR, searched_rule
from sparsemend.repairs import EFFORTS, DistillSettings, most_at_once
from sparsemend.session import Session
from sparsemend.verbs.costs import Costs
from sparsemend.verbs.screen import span

# How many rules are tried, the most promising.
_RULES = 3
# Repairs that a search makes where it has the time, and what the endings of repair best cost.
_SEARCH, _SHORTEST_SEARCH, _ENDINGS = 40.0, 12.0, 6.0
# Where the repair trains: diagnosis, rules and a first mixture. Two of the trials are trained,
# and then the result.
_TRAINED_SEARCH, _TRAININGS = 10.0, 3
# Steps of a distillation: fewer are of no use, so many are kept time for, more bring little.
_STEPS = (30, 200, 400)
# Fewer inputs are no calibration.
_FEWEST = 32
# Part of the time that is planned for: estimates are no more than that.
PLANNED_SHARE = 0.9
_RECONSTRUCT, _MATCH = "reconstruct", "variance"


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes
    ----------
    repair, effort, inputs
        The repair, how much work it may be, and how many inputs it sees.
    seconds
        How long it may take.
    rule
        Whose allocation it gets; empty for that of the best before it.
    budget
        Of rule ``auto``: how long it may search; None for its own limit.
    distill
        Of repair ``best``: for how many steps it trains; None for not at all.
    """

    repair: str
    effort: str
    inputs: int
    seconds: float
    rule: str = ""
    budget: str | None = None
    distill: int | None = None

    def __str__(self) -> str:
        effort = f"{self.effort} " if self.effort != "full" else ""
        rule = f"rule {self.rule}" if self.rule else "the best rule"
        trained = "" if self.distill is None else f", distilled for {self.distill} steps,"
        return f"{rule} with {effort}{self.repair}{trained} on {self.inputs:,} inputs"


@dataclass(frozen=True)
class Training:
    """A distillation of the best at the end, which never makes it worse.

    Attributes
    ----------
    each
        Seconds of one step; infinite where there is to be none.
    kept
        Seconds that are kept for it; it may also be what is done with time that is left over.
    """

    each: float = math.inf
    kept: float = 0.0

    def steps(self, seconds: float) -> int:
        """How many there is time for, in tens; 0 where they are too few to be of use."""
        if not math.isfinite(self.each):
            return 0
        count = 10 * int(min(_STEPS[2], max(0.0, seconds) / self.each) // 10)
        return count if count >= _STEPS[0] else 0

    def within(self, spare: float) -> Training:
        """The same, with time kept for it where there is so much to spare."""
        wanted = _STEPS[1] * self.each
        return dataclasses.replace(self, kept=wanted if wanted <= spare else 0.0)


def steps(
    session: Session,
    costs: Costs,
    recipe: Recipe,
    seconds: float = math.inf,
    quota: Quota | None = None,
    training: Training | None = None,
) -> list[Step]:
    """What is worth doing, one after the other; the first fits into the time if anything does.

    Parameters
    ----------
    session
        The network and its inputs.
    costs
        Of the network on this machine.
    recipe
        What is asked for; steps that it rules out are left out.
    seconds
        How long there is.
    quota
        What the layers may keep; default by the sparsity of the recipe.
    training
        What a step of a distillation takes; None where there is to be none.
    """
    sparsity = (quota or recipe.quota(session)).sparsity
    layers, inputs = list(session.layers), count_inputs(session.seen)
    judging = costs.judging(count_inputs(session.unseen))
    known = sorted(RULES.values(), key=lambda rule: rule.rank_at(sparsity))
    even = session.pattern.density is not None
    fitting = (rule for rule in known if rule.even or not even)
    rules = [rule.name for rule in fitting if not rule.diagnosed][:_RULES]

    def reconstruction(effort: str, count: int) -> float:
        settings = EFFORTS[effort]
        return costs.reconstruction(layers, sparsity, count, settings) + judging

    def matching(count: int) -> list[Step]:
        one = costs.matching(count) + judging
        return [Step(_MATCH, "full", count, one, rule) for rule in rules]

    if not _suits(recipe, _RECONSTRUCT, session.model):
        return matching(inputs)
    full = reconstruction("full", inputs)
    endings = _ENDINGS * full
    if even and full + endings <= seconds:  # nothing to search for
        return [Step(REPAIR, "full", inputs, endings, rules[0])]
    if not even and (search := _search(full, inputs, seconds, training or Training())):
        return [search]
    count = inputs
    while reconstruction("quick", count) > seconds:
        count //= 2
        if count < _FEWEST or not costs.cuts:
            fewer = inputs
            while costs.cuts and costs.matching(fewer) > seconds and fewer >= 2 * _FEWEST:
                fewer //= 2
            return matching(fewer)
    effort = "full" if reconstruction("full", count) <= seconds else "quick"
    each = reconstruction(effort, count)
    tried = [Step(_RECONSTRUCT, effort, count, each, rule) for rule in rules]
    if (effort, count) != ("full", inputs):
        tried.append(Step(_RECONSTRUCT, "full", inputs, full))
    return [*tried, Step(REPAIR, "full", inputs, endings)]


def _search(full: float, inputs: int, seconds: float, training: Training) -> Step | None:
    """Rule ``auto`` and repair ``best``, where there is the time; ``full``: of one repair.

    They train wherever a short search leaves time for that. Where only a few rules do, these come
    before a longer search that does not train.
    """
    endings = _ENDINGS * full
    count = training.steps((seconds - _TRAINED_SEARCH * full - endings) / _TRAININGS)
    if count >= _STEPS[1]:
        whole = _SEARCH * full + endings + _TRAININGS * count * training.each
        if whole <= seconds:
            return Step(REPAIR, "full", inputs, whole, AUTO, distill=count)
        limit = seconds - endings - count * training.each
        return Step(REPAIR, "full", inputs, seconds, AUTO, f"{limit:.0f}s", count)
    if training.steps(seconds - _RULES * full - endings) >= _STEPS[1]:
        return None
    if _SEARCH * full + endings <= seconds:
        return Step(REPAIR, "full", inputs, _SEARCH * full + endings, AUTO)
    if _SHORTEST_SEARCH * full + endings <= seconds:
        return Step(REPAIR, "full", inputs, seconds, AUTO, f"{seconds - endings:.0f}s")
    return None


def fitting(wanted: Sequence[Step], seconds: float) -> int:
    """How many of the steps the time is thought to be long enough for, one at least."""
    count, total = 1, wanted[0].seconds
    for step in wanted[1:]:
        total += step.seconds
        if total > seconds:
            break
        count += 1
    return count


def estimated_training(session: Session, costs: Costs) -> Training:
    """What a step takes, as it is estimated."""
    if not costs.cuts:
        return Training()
    most = most_at_once(session.seen, DistillSettings().batch)
    return Training(costs.training(min(most, count_inputs(session.seen))))


def described(wanted: Sequence[Step], count: int, limit: float, training: Training) -> str:
    """The plan in words: what will be done, and what more time would bring."""
    done = [str(step) for step in wanted[:count]]
    if training.kept:
        done.append("a distillation of the best in the time that is left")
    seconds = sum(step.seconds for step in wanted[:count]) + training.kept
    text = f"plan for {span(limit)}: {'; '.join(done)}; about {span(seconds)}"
    if count == len(wanted):
        return text
    more = (training.kept + sum(s.seconds for s in wanted[: count + 1])) / PLANNED_SHARE
    return f"{text}; with {span(more)} also {wanted[count]}"


def _suits(recipe: Recipe, repair: str, model: nn.Module) -> bool:
    try:
        rule = searched_rule(parse_pattern(recipe.pattern))
        dataclasses.replace(recipe, rule=rule, repair=repair, budget=None).check(model)
    except SparsemendError:
        return False
    return True
