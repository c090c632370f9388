"""The default of a compression: as much as fits into a time, said beforehand.

The first steps are measured (``costs.py``), the rest is planned. Where there is the time, rule
``auto`` searches and repair ``best`` tries every ending. Else a repair with the most promising
rule comes first, then with others, then every ending with the best of them: as far as the time
lasts, which measured steps tell better than the first estimate, less what is kept for a short
distillation of the best at the end. Where not even one full repair fits, it is a quick one, with
fewer inputs if need be, or variances are matched instead. What was done is a :class:`.plan.Plan`,
with which it can be done again exactly.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from sparsemend.allocation import RULES, Quota
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import count_inputs, first_inputs
from sparsemend.finite import NotFiniteError, check_network
from sparsemend.patterns import parse_pattern
from sparsemend.progress import announce, timed_bar
from sparsemend.recipe import AUTO, Recipe
from sparsemend.recipe.defaults import REPAIR, searched_rule
from sparsemend.repairs import (
    EFFORTS,
    DistillSettings,
    Support,
    Terms,
    adopt,
    get_repair,
    parse_repair,
    repairs,
    step_seconds,
)
from sparsemend.repairs.repair import Situation
from sparsemend.session import Session
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.costs import Costs
from sparsemend.verbs.plan import Plan
from sparsemend.verbs.running import run_recipe
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
# Steps that show how long one takes.
_PROBE = 10
# Fewer inputs are no calibration.
_FEWEST = 32
# Part of the time that is planned for: estimates are no more than that.
_PLANNED_SHARE = 0.9
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


def run_planned(
    session: Session, recipe: Recipe, *, into: nn.Module | None = None
) -> CompressionResult:
    """Do what fits into the recipe's time.

    Parameters
    ----------
    session
        The dense network and its inputs, some of them held out.
    recipe
        A planned one.
    into
        A network equal to the dense one, to be changed in place; default a copy.
    """
    start = time.perf_counter()
    session.check_outputs()
    limit = _PLANNED_SHARE * recipe.limit.seconds
    quota = recipe.quota(session)
    costs = Costs.measure(session)
    left = limit - (time.perf_counter() - start)
    training = _training(session, costs)
    wanted = steps(session, costs, recipe, left, quota, training)
    if wanted[0].distill is not None:
        training = _measured(session)
        left = limit - (time.perf_counter() - start)
        wanted = steps(session, costs, recipe, left, quota, training)
    training = Training() if wanted[0].rule == AUTO else training.within(left - wanted[0].seconds)
    count = fitting(wanted, left - training.kept)
    note = _described(wanted, count, recipe.limit.seconds, training)
    announce(note)
    planned = sum(step.seconds for step in wanted[:count]) + training.kept
    with timed_bar("all of it", planned):
        result = carry_out(session, recipe, wanted, start + limit, training, quota)
    assert result.plan is not None
    plan = dataclasses.replace(result.plan, note=note)
    spent = time.perf_counter() - start - sum(result.seconds.values())
    seconds = {"plan and try": spent, **result.seconds}
    result = dataclasses.replace(result, plan=plan, seconds=seconds)
    return result if into is None else placed(result, into)


def carry_out(
    session: Session,
    recipe: Recipe,
    wanted: Sequence[Step],
    deadline: float = math.inf,
    training: Training | None = None,
    quota: Quota | None = None,
) -> CompressionResult:
    """The closest result of the steps that there was time for; of the first in any case.

    Parameters
    ----------
    session
        The dense network and its inputs.
    recipe
        What is asked for.
    wanted
        The steps, in order. An interrupt ends them with the best so far.
    deadline
        On the clock ``time.perf_counter``: no step begins that would end later, by its estimate
        and by how long those before it took.
    training
        How the best of them is trained in the time that is left; None for not at all.
    quota
        What the layers may keep; default by the sparsity of the recipe.
    """
    training = training or Training()
    best: CompressionResult | None = None
    tried: dict[str, float] = {}
    spent = thought = 0.0
    for step in wanted:
        begun = time.perf_counter()
        pace = spent / thought if thought else 1.0
        if best is not None and begun + pace * step.seconds + training.kept > deadline:
            break
        try:
            result = _done(session, recipe, step, best, quota)
        except NotFiniteError:
            if step is wanted[-1] and best is None:
                raise
            continue
        except KeyboardInterrupt:
            if best is None:
                raise
            announce("interrupted: the best so far is kept")
            break
        spent, thought = spent + time.perf_counter() - begun, thought + step.seconds
        name = step.rule or f"{result.rule}, {step.effort} {result.repair}"
        tried[name] = result.agreement.loss
        if best is None or result.agreement.loss < best.agreement.loss:
            best = result
    assert best is not None, "the first step is always taken"
    assert best.plan is not None
    best = dataclasses.replace(best, plan=dataclasses.replace(best.plan, trials=tried))
    return _distilled(session, best, training, deadline)


def _training(session: Session, costs: Costs) -> Training:
    """What a step takes, as it is estimated."""
    if not costs.cuts:
        return Training()
    return Training(costs.training(min(DistillSettings().batch, count_inputs(session.seen))))


def _measured(session: Session) -> Training:
    """What a step takes, by trying; none where the network cannot be trained."""
    try:
        return Training(step_seconds(session))
    except SparsemendError:
        return Training()


def _distilled(
    session: Session, best: CompressionResult, training: Training, deadline: float
) -> CompressionResult:
    """The best after as many steps of a distillation as there is time for, where that is closer."""
    if best.plan is None or not training.steps(deadline - time.perf_counter()):
        return best
    fewer = session.on(first_inputs(session.seen, best.plan.inputs))
    repair = get_repair("distill")
    support = Support(dict(best.allocation), dict(best.masks))

    def trained(count: int) -> nn.Module:
        network = copy.deepcopy(best.model)
        terms = Terms(support, best.scope, distill=DistillSettings(steps=count))
        repair.run(fewer, network, terms)
        return network

    try:
        begun = time.perf_counter()
        trained(_PROBE)
        now = time.perf_counter()
        count = Training((now - begun) / _PROBE).steps(deadline - now)
        if not count:
            return best
        network = trained(count)
        check_network(network, "the network after repair 'distill'")
    except SparsemendError:  # no gradient reaches the weights, or numbers overflow
        return best
    found = fewer.reference.agreement(network)
    if not found.loss < best.agreement.loss:
        return best
    formula = f"{best.repair}+{repair.name}"
    plan = dataclasses.replace(best.plan, repair=formula, distill=count)
    tried = {**best.tried, formula: found.loss}
    return dataclasses.replace(
        best, model=network, repair=formula, agreement=found, tried=tried, plan=plan
    )


def _done(
    session: Session,
    recipe: Recipe,
    step: Step,
    best: CompressionResult | None,
    quota: Quota | None,
) -> CompressionResult:
    """The result of one step."""
    training = None if step.distill is None else str(step.distill)
    changes: dict[str, Any] = {"repair": step.repair, "budget": step.budget, "distill": training}
    if step.rule or best is None:
        rule = step.rule or searched_rule(session.pattern)
        own = dataclasses.replace(recipe, rule=rule, **changes)
    else:
        own = recipe.given(best.allocation, **changes)
    fewer = session.on(first_inputs(session.seen, step.inputs))
    with warnings.catch_warnings():
        if best is not None:  # the first has said what there is to say
            warnings.simplefilter("ignore", SparsemendWarning)
        result = _finished(run_recipe(fewer, own, effort=step.effort, quota=quota), fewer)
    plan = Plan(
        result.allocation,
        result.mask,
        result.repair,
        result.scope,
        step.effort,
        count_inputs(fewer.seen),
        distill=step.distill if parse_repair(result.repair).training == "always" else None,
        pattern=result.pattern,
    )
    return dataclasses.replace(result, plan=plan)


def rerun(
    session: Session, recipe: Recipe, plan: Plan, *, into: nn.Module | None = None
) -> CompressionResult:
    """Do what a plan says."""
    recipe = recipe.given(
        plan.allocation,
        mask=plan.mask,
        repair=plan.repair,
        scope=plan.scope,
        distill=plan.distill,
        budget=None,
    )
    recipe.check(session.model)
    fewer = session.on(first_inputs(session.seen, plan.inputs))
    result = run_recipe(fewer, recipe, into=into, effort=plan.effort)
    return dataclasses.replace(result, plan=plan)


def _finished(result: CompressionResult, session: Session) -> CompressionResult:
    """With what finishes a refitted network, where that is closer."""
    if result.tried or not any(r.name == result.repair and r.refits for r in repairs().values()):
        return result
    tried = {result.repair: result.agreement.loss}
    best = result
    support = Support(dict(result.allocation), dict(result.masks))
    for repair in repairs().values():
        situation = Situation(session, support, tried)
        if not repair.finishes or (repair.ending is not None and not repair.ending(situation)):
            continue
        network = copy.deepcopy(result.model)
        formula = f"{result.repair}+{repair.name}"
        try:
            outcome = repair.run(session, network, Terms(support, result.scope))
            check_network(network, f"the network after repair {formula!r}")
        except NotFiniteError:
            continue
        found = session.reference.agreement(network)
        tried[formula] = found.loss
        if found.loss < best.agreement.loss:
            best = dataclasses.replace(
                result, model=network, repair=formula, agreement=found,
                added_biases=(*result.added_biases, *outcome.added_biases),
            )  # fmt: skip
    return dataclasses.replace(best, tried=tried)


def placed(result: CompressionResult, into: nn.Module) -> CompressionResult:
    """The same with the user's network in the place of a copy, if it is one."""
    if result.model is into:
        return result
    adopt(into, result.model)
    return dataclasses.replace(result, model=into)


def _suits(recipe: Recipe, repair: str, model: nn.Module) -> bool:
    try:
        rule = searched_rule(parse_pattern(recipe.pattern))
        dataclasses.replace(recipe, rule=rule, repair=repair, budget=None).check(model)
    except SparsemendError:
        return False
    return True


def _described(wanted: Sequence[Step], count: int, limit: float, training: Training) -> str:
    done = [str(step) for step in wanted[:count]]
    if training.kept:
        done.append("a distillation of the best in the time that is left")
    seconds = sum(step.seconds for step in wanted[:count]) + training.kept
    text = f"plan for {span(limit)}: {'; '.join(done)}; about {span(seconds)}"
    if count == len(wanted):
        return text
    more = (training.kept + sum(s.seconds for s in wanted[: count + 1])) / _PLANNED_SHARE
    return f"{text}; with {span(more)} also {wanted[count]}"
