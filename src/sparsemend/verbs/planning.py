"""The default of a compression: as much as fits into a time, said beforehand.

The first steps are measured (``costs.py``), the rest is planned (``steps.py``) and carried out as
far as the time lasts, which measured steps tell better than the first estimate, less what is kept
for a short distillation of the best at the end. What was done is a :class:`.plan.Plan`, with which
it can be done again exactly.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import time
import warnings
from collections.abc import Sequence
from typing import Any

from torch import nn

from sparsemend.allocation import Quota
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import count_inputs, first_inputs
from sparsemend.execution.interrupts import interrupts_noted
from sparsemend.finite import NotFiniteError, check_network
from sparsemend.progress import announce, timed_bar
from sparsemend.recipe import AUTO, Recipe
from sparsemend.recipe.defaults import searched_rule
from sparsemend.repairs import (
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
from sparsemend.verbs.steps import (
    PLANNED_SHARE,
    Step,
    Training,
    described,
    estimated_training,
    fitting,
    steps,
)


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
    limit = PLANNED_SHARE * recipe.limit.seconds
    quota = recipe.quota(session)
    costs = Costs.measure(session)
    left = limit - (time.perf_counter() - start)
    training = estimated_training(session, costs)
    wanted = steps(session, costs, recipe, left, quota, training)
    if wanted[0].distill is not None:
        training = _measured(session)
        left = limit - (time.perf_counter() - start)
        wanted = steps(session, costs, recipe, left, quota, training)
    training = Training() if wanted[0].rule == AUTO else training.within(left - wanted[0].seconds)
    count = fitting(wanted, left - training.kept)
    note = described(wanted, count, recipe.limit.seconds, training)
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
    interrupted = False
    for step in wanted:
        begun = time.perf_counter()
        pace = spent / thought if thought else 1.0
        if best is not None and begun + pace * step.seconds + training.kept > deadline:
            break
        try:
            with interrupts_noted() as noted:
                result = _done(session, recipe, step, best, quota)
        except NotFiniteError:
            if step is wanted[-1] and best is None:
                raise
            continue
        except KeyboardInterrupt:
            if best is None:
                raise
            interrupted = True
            break
        spent, thought = spent + time.perf_counter() - begun, thought + step.seconds
        name = step.rule or f"{result.rule}, {step.effort} {result.repair}"
        tried[name] = result.agreement.loss
        if best is None or result.agreement.loss < best.agreement.loss:
            best = result
        if noted.came:
            interrupted = True
            break
    assert best is not None, "the first step is always taken"
    assert best.plan is not None
    best = dataclasses.replace(best, plan=dataclasses.replace(best.plan, trials=tried))
    if not interrupted:
        try:
            return _distilled(session, best, training, deadline)
        except KeyboardInterrupt:
            pass
    announce("interrupted: the best so far is kept")
    return best


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
    each = _measured(fewer)
    count = each.steps(deadline - time.perf_counter())
    if not count:
        return best
    network = copy.deepcopy(best.model)
    try:
        repair.run(fewer, network, Terms(support, best.scope, distill=DistillSettings(steps=count)))
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
