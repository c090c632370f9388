"""Where a search for an allocation starts: the plain rules, and damage weighed by sensitivity."""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsemend.allocation import RULES, Allocation, Quota, allocate_layers
from sparsemend.calibration import InputMoments
from sparsemend.diagnosis import Diagnosis, session_diagnosis
from sparsemend.errors import SparsemendError
from sparsemend.layers import layer_weights
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.recipe import Recipe
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR
from sparsemend.search.auto import search_allocation
from sparsemend.search.objective import Objective
from sparsemend.search.result import AllocationSearch
from sparsemend.search.sensitivity import sensitivities
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
        For the rules that need one; default :func:`damage_curves`.
    quota
        What the layers may keep; default by the sparsity of the recipe.
    """
    quota = quota or recipe.quota(session)
    curves = damage_curves(session, recipe) if diagnosis is None else diagnosis

    def further() -> dict[str, tuple[int, ...]]:
        return {"sensitive damage": tuple(sensitive_allocation(session, quota, curves).values())}

    return search_allocation(
        session.layers,
        plain_allocations(session, quota, curves),
        Objective(session, recipe),
        recipe.limit,
        further=further,
        further_cost=_SENSITIVITY_COST,
        label=session.jury.label,
        quota=quota,
    )


def damage_curves(session: Session, recipe: Recipe) -> Diagnosis:
    """The diagnosis that a search goes by: of the repair used, as far as that is cheap.

    Magnitude masks stand for those that are chosen with the fit, whose choice costs as much as
    a repair for every density; where a layer is too wide for d × d moments, ``variance`` and
    magnitude masks stand for all.
    """
    moments = session.calibration.moments.values()
    wide = not all(isinstance(found, InputMoments) for found in moments)
    repair = DIAGNOSED_REPAIR if wide else recipe.formula.diagnosis
    rule = MAGNITUDE if wide or recipe.mask_rule.joint else recipe.mask_rule
    return session_diagnosis(session, repair, rule.name)


def plain_allocations(
    session: Session, quota: Quota, diagnosis: Diagnosis
) -> dict[str, Allocation]:
    """Every plain rule's allocation; the rules that lead most often come first.

    A rule that cannot divide this budget among these layers is left out, and so is what needs
    sensitivities of its own kind.
    """
    layers = session.layers
    weights = layer_weights(session.model, layers)
    found: dict[str, Allocation] = {}
    for name, rule in sorted(RULES.items(), key=lambda item: item[1].rank_at(quota.sparsity)):
        if rule.needs == "sensitivities":
            continue
        try:
            found[name] = allocate_layers(layers, weights, quota, name, diagnosis=diagnosis)
        except SparsemendError:
            if not rule.may_refuse:
                raise
    return found


def sensitive_allocation(session: Session, quota: Quota, diagnosis: Diagnosis) -> Allocation:
    """Least damage after repair, each layer's weighed by what noise in it does to the output.

    Minimises Σ_l s_l · residual_l(density_l) under the budget, s_l from
    :func:`.sensitivity.sensitivities` on the first batch of the inputs to judge on.
    """
    layers = session.layers
    measured = sensitivities(session.model, session.unseen[:1], layers, jury=session.jury)
    weights = np.array([measured[name] for name in diagnosis.layers])
    weighted = dataclasses.replace(diagnosis, residual=diagnosis.residual * weights[:, None])
    return allocate_layers(
        layers, layer_weights(session.model, layers), quota, "rr", diagnosis=weighted
    )
