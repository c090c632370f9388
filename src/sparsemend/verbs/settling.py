"""What a finished network costs, and where that was not foreseen, the network once more."""

from __future__ import annotations

import dataclasses

from sparsemend.recipe import Recipe
from sparsemend.session import Session
from sparsemend.targets import Subject, Target, kept_share
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.division import refilled
from sparsemend.verbs.planning import rerun
from sparsemend.verbs.running import run_recipe


def costed(result: CompressionResult, session: Session, target: Target | None) -> CompressionResult:
    """The result with what the network costs."""
    subject = session.once(
        "subject", lambda: Subject(session.model, session.layers, session.seen[0])
    )
    share = kept_share(subject, result.allocation, result.model)
    result = dataclasses.replace(
        result, multiplications=subject.multiplications, kept_multiplications=share
    )
    if target is None:
        return result
    reached = target.reached(result.model, subject.batch, share)
    return dataclasses.replace(result, target=target, reached=reached)


def settled(
    result: CompressionResult, session: Session, recipe: Recipe, target: Target
) -> CompressionResult:
    """The result with what the network costs; made once more where it misses the target by far."""
    result = costed(result, session, target)
    reached, counts = result.reached, tuple(result.allocation.values())
    if reached is None or not target.missed(reached):
        return result
    quota = target.quota(session.model, session.layers, session.seen[0])
    allocation = refilled(result.allocation, quota.corrected(counts, reached))
    if dict(allocation) == dict(result.allocation):
        return result
    if result.plan is None:
        again = run_recipe(session, recipe.given(allocation, budget=None))
    else:
        plan = dataclasses.replace(result.plan, allocation=allocation)
        again = rerun(session, recipe, plan)
    search, seconds = result.search, {**result.seconds, "once more": sum(again.seconds.values())}
    if search is not None:
        search = dataclasses.replace(search, allocation=allocation)
    again = costed(again, session, target)
    return dataclasses.replace(again, search=search, diagnosis=result.diagnosis, seconds=seconds)
