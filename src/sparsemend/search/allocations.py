"""Where a search for an allocation starts: what the plain rules give."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from sparsemend.allocation import RULES, Allocation, Quota, Rule, allocate_layers
from sparsemend.diagnosis import Diagnosis, recipe_diagnosis, with_sensitivities
from sparsemend.errors import SparsemendError
from sparsemend.layers import layer_weights
from sparsemend.recipe import BRANCHES, Recipe
from sparsemend.recipe.defaults import JUDGE
from sparsemend.search.auto import Further, search_allocation
from sparsemend.search.branches import branch_allocation, branching_cost
from sparsemend.search.objective import Objective
from sparsemend.search.result import AllocationSearch
from sparsemend.session import Session

# Measuring sensitivities takes about as long as a repair.
_SENSITIVITY_COST = 1.0


def find_allocation(
    session: Session,
    recipe: Recipe,
    diagnosis: Diagnosis | None = None,
    quota: Quota | None = None,
) -> AllocationSearch:
    """Rule ``auto``: the allocation whose repaired network is closest to the dense one.

    Parameters
    ----------
    session
        The dense network, the inputs that repairs see, and those to judge on.
    recipe
        Mask rule and repair of the trials, and when to stop.
    diagnosis
        For the rules that need one; default :func:`sparsemend.diagnosis.recipe_diagnosis`.
    quota
        What the layers may keep; default by the sparsity of the recipe.
    """
    quota = quota or recipe.quota(session)
    curves = recipe_diagnosis(session, recipe) if diagnosis is None else diagnosis

    def sensitive() -> dict[str, tuple[int, ...]]:
        found = sensitive_allocations(session, recipe, quota, curves)
        return {name: tuple(allocation.values()) for name, allocation in found.items()}

    def branched() -> dict[str, tuple[int, ...]]:
        counts = tuple(branch_allocation(session, recipe, quota).values())
        return {BRANCHES: counts} if 0 in counts else {}

    further = [Further(sensitive, _SENSITIVITY_COST)]
    if cost := branching_cost(session, recipe):
        further.append(Further(branched, cost))
    judged = _judged(session, recipe)
    return search_allocation(
        session.layers,
        plain_allocations(session, quota, curves),
        Objective(judged, recipe),
        recipe.limit,
        further=further,
        label=judged.jury.label,
        quota=quota,
    )


def _judged(session: Session, recipe: Recipe) -> Session:
    """As closeness is judged while the search lasts.

    A light repair at a high sparsity leaves a network that is less sure of its class scores than
    the dense one, the closer by KL the less it says: unless KL is asked for, direction decides.
    """
    if recipe.formula.refits or recipe.judge != JUDGE:
        return session
    jury = session.jury.by_direction()
    return session if jury == session.jury else session.judged_by(jury)


def plain_allocations(
    session: Session, quota: Quota, diagnosis: Diagnosis
) -> dict[str, Allocation]:
    """Every plain rule's allocation; the rules that lead most often come first.

    A rule that cannot divide this budget among these layers is left out, and so is what needs
    sensitivities.
    """
    plain = (rule for rule in RULES.values() if rule.searched and rule.needs != "sensitivities")
    ranked = sorted(plain, key=lambda rule: rule.rank_at(quota.sparsity))
    return _allocations(session, quota, ranked, diagnosis)


def sensitive_allocations(
    session: Session, recipe: Recipe, quota: Quota, diagnosis: Diagnosis
) -> dict[str, Allocation]:
    """The allocation of every rule that needs sensitivities: what it gives when it is named.

    Parameters
    ----------
    session, recipe, quota
        As of :func:`find_allocation`.
    diagnosis
        Of the search. Without sensitivities it is not for these rules, which then get their own.
    """
    found: dict[str, Allocation] = {}
    for name, rule in RULES.items():
        if rule.searched and rule.needs == "sensitivities":
            own = diagnosis
            if own.sensitivities is None:
                named = dataclasses.replace(recipe, rule=name, budget=None)
                own = with_sensitivities(session, recipe_diagnosis(session, named))
            found |= _allocations(session, quota, [rule], own)
    return found


def _allocations(
    session: Session, quota: Quota, rules: Iterable[Rule], diagnosis: Diagnosis
) -> dict[str, Allocation]:
    layers = session.layers
    weights = layer_weights(session.model, layers)
    found: dict[str, Allocation] = {}
    for rule in rules:
        try:
            found[rule.name] = allocate_layers(
                layers, weights, quota, rule.name, diagnosis=diagnosis
            )
        except SparsemendError:
            if not rule.may_refuse:
                raise
    return found
