"""One recipe, carried out: calibrate, diagnose, allocate, prune, repair, compare."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from torch import nn

from sparsemend.allocation import Allocation, Densities, Quota, kept_total
from sparsemend.diagnosis import Diagnosis, recipe_diagnosis, with_sensitivities
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import signal_ends
from sparsemend.execution.copies import copied
from sparsemend.layers.refusals import check_alone, check_apart
from sparsemend.masks import check_fit
from sparsemend.recipe import Recipe
from sparsemend.recipe.defaults import PATTERN
from sparsemend.repairs import EFFORTS, Terms
from sparsemend.search import (
    AllocationSearch,
    branch_allocation,
    divided_again,
    find_allocation,
    start_support,
)
from sparsemend.session import Session
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.division import corrected, divide, refilled
from sparsemend.verbs.verification import shapes_of, verify_result


def run_recipe(
    session: Session,
    recipe: Recipe,
    *,
    diagnosis: Diagnosis | None = None,
    into: nn.Module | None = None,
    effort: str = "full",
    quota: Quota | None = None,
) -> CompressionResult:
    """Make a network sparse as a recipe says.

    Parameters
    ----------
    session
        The dense network and its inputs, with the recipe's criterion.
    recipe
        What to do.
    diagnosis
        Of the session's network, for rules that read one; default one for the repair.
    into
        A network equal to the dense one, to be changed in place; default a copy.
    effort
        How much work a reconstruction may be, one of :data:`sparsemend.repairs.EFFORTS`.
    quota
        What the layers may keep, where the recipe's budget has been measured already.
    """
    seconds: dict[str, float] = {}
    session.check_outputs()
    if quota is None and recipe.target is not None:
        with _timed(seconds, "measure costs"):
            quota = recipe.quota(session)
    diagnosing = diagnosis is None and (recipe.searches or recipe.needs_diagnosis)
    reads = recipe.mask_rule.needs
    if recipe.searches or diagnosing:
        reads = "moments"
    elif recipe.needs_columns and reads != "moments":
        reads = "columns"
    if reads in ("columns", "moments") and not session.calibrated:
        with _timed(seconds, "calibrate"):
            session.moments_for(reads)
    if diagnosing:
        with _timed(seconds, "diagnose"):
            diagnosis = recipe_diagnosis(session, recipe)
    search = None
    if recipe.searches:
        with _timed(seconds, "search"):
            search = _searched(session, recipe, diagnosis, quota)
        allocation = search.allocation
    else:
        if recipe.needs_sensitivities and diagnosis is not None:
            with _timed(seconds, "measure sensitivities"):
                diagnosis = with_sensitivities(session, diagnosis)
        with _timed(seconds, "allocate"):
            allocation = _allocation(session, recipe, diagnosis, quota)
    network = copied(session.model) if into is None else into
    check_apart(network, session.model)
    twin, original = (network, session.model) if into is None else (session.model, network)
    check_alone(twin, [original], session.seen[0])
    with _timed(seconds, "prune"):
        support = start_support(session, network, allocation, recipe.mask_rule)
    with _timed(seconds, "repair"):
        settings = None if effort == "full" else EFFORTS[effort]
        terms = Terms(support, recipe.scope, settings, recipe.new_biases, distill=recipe.training)
        outcome = recipe.formula.run(session, network, terms)
        parameters = shapes_of(session.model)
        verify_result(
            network,
            parameters,
            outcome.masks,
            allocation,
            session.layers,
            outcome.added_biases,
        )
        check_apart(network, session.model)
    with _timed(seconds, "compare"):
        closeness = session.reference.agreement(network)
        ended = signal_ends(session.model, network, session.layers, session.unseen[0])
    if ended:
        warnings.warn(
            "the output of the sparse network does not depend on its input any more; the signal "
            f"ends at {', '.join(ended)}: remove fewer weights there, or choose another rule",
            SparsemendWarning,
            stacklevel=3,
        )
    return CompressionResult(
        model=network,
        masks=outcome.masks,
        allocation=allocation,
        rule=recipe.rule_name,
        mask=recipe.mask_rule.name,
        pattern=recipe.pattern,
        repair=outcome.repair or str(recipe.formula),
        scope=recipe.scope,
        agreement=closeness,
        heldout=session.heldout,
        diagnosis=diagnosis if recipe.searches or recipe.needs_diagnosis else None,
        search=search,
        layers=session.layers,
        added_biases=outcome.added_biases,
        unshifted=outcome.unshifted,
        held_back=outcome.held_back,
        signal_ends=ended,
        tried=outcome.tried,
        seconds=seconds,
    )


def _searched(
    session: Session, recipe: Recipe, diagnosis: Diagnosis | None, quota: Quota | None
) -> AllocationSearch:
    """Of a budget whose costs are modelled, with costs that are right for what was found."""
    quota = quota or recipe.quota(session)
    search = find_allocation(session, recipe, diagnosis, quota)
    found = corrected(quota, search.allocation, partial(refilled, search.allocation))
    return dataclasses.replace(search, allocation=found)


def _allocation(
    session: Session, recipe: Recipe, diagnosis: Diagnosis | None, quota: Quota | None
) -> Allocation:
    """The recipe's own, or that of its rule."""
    if isinstance(recipe.rule, Allocation):
        sizes = recipe.rule.sizes
        strange = [layer.name for layer in session.layers if sizes.get(layer.name) != layer.size]
        if strange:
            raise SparsemendError(
                "the allocation lacks layers of the network, or has them in another size",
                strange[:5],
                fix="allocate for the network that is compressed",
            )
        check_fit(recipe.rule, session.layers)
        _check_total(recipe, recipe.rule, session)
        return recipe.rule
    if isinstance(recipe.rule, Densities):
        return recipe.rule.allocate(session.layers, recipe.sparsity)
    quota = quota or recipe.quota(session)
    if recipe.tries_branches:
        found = branch_allocation(session, recipe, quota)
        return corrected(quota, found, partial(divided_again, session, found))
    columns = session.moments_for("columns") if recipe.needs_columns else None
    return divide(session.model, session.layers, quota, recipe.rule_name, diagnosis, columns)


def _check_total(recipe: Recipe, allocation: Allocation, session: Session) -> None:
    """Refuse an allocation whose total is not as near to the sparsity as its pattern allows."""
    if recipe.pattern == PATTERN or recipe.sparsity is None:
        return
    wanted = kept_total(recipe.sparsity, allocation.total)
    nearness = max(layer.structure.least for layer in session.layers)
    if abs(allocation.kept - wanted) > nearness:
        raise SparsemendError(
            "the allocation is of another sparsity",
            f"{allocation.kept} weights kept",
            f"about {wanted} of {allocation.total}, as sparsity {recipe.sparsity:g} asks for",
            f"pass sparsity={allocation.sparsity!r}",
        )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
