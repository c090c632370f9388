"""The whole job in one call: calibrate, diagnose, allocate, prune, repair, compare."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import nn

from sparsemend.allocation import check_rule, kept_total, needs_diagnosis
from sparsemend.calibration import Calibration, calibrate
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import agreement
from sparsemend.execution.batches import Batches, materialise
from sparsemend.layers import discover
from sparsemend.masks import JOINT, NEEDS_CALIBRATION, get_mask_rule
from sparsemend.repairs import RepairPlan, check_plan, parse_repair, run_plan
from sparsemend.search import (
    AUTO,
    damage_curves,
    find_allocation,
    hold_out,
    parse_budget,
    repair_best,
    start_support,
)
from sparsemend.verbs.allocate import allocate
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.repair import adopt


def compress(
    model: nn.Module,
    batches: Batches,
    sparsity: float,
    rule: str = AUTO,
    mask: str | None = None,
    repair: str = "best",
    *,
    scope: str = "sequential",
    heldout: Batches | None = None,
    budget: float | str | None = None,
    calibration: Calibration | None = None,
    diagnosis: Diagnosis | None = None,
    inplace: bool = False,
    progress: bool | None = None,
) -> CompressionResult:
    """Prune a trained network to a global sparsity and repair it, without labels.

    Parameters
    ----------
    model
        The dense network; unchanged unless ``inplace``.
    batches
        Unlabelled calibration batches, or one tensor [N, ...]; held in memory.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1).
    rule
        Allocation rule, see :func:`sparsemend.allocate`; or ``"auto"``: a search, started from
        all of these, for the allocation whose repaired network is closest to the dense one.
    mask
        ``"magnitude"`` or ``"activation"`` (see :func:`sparsemend.prune`), or ``"gradual"``:
        chosen jointly with the reconstruction. Default: gradual with a repair that
        reconstructs, else magnitude.
    repair
        Repair formula, see :func:`sparsemend.repairs`. Default ``"best"``: the ending that is
        closest to the dense network on ``heldout``.
    scope
        ``"sequential"`` or ``"one-shot"``.
    heldout
        Unlabelled inputs that the repair must not see, on which to measure agreement. Without
        them rule ``auto`` and repair ``best`` set the last fifth of the batches aside, and
        others are measured on the calibration inputs.
    budget
        How long rule ``auto`` may search: a number of repairs (default 40), or a time such as
        ``"20min"``. An interrupt (Ctrl-C) ends the search with the best so far.
    calibration, diagnosis
        Results of earlier calls on the same network and inputs, to save their time.
    inplace
        Change the model that was passed; on an error before the repair it is unchanged.
    progress
        Show progress bars; default on a terminal.

    Returns
    -------
    CompressionResult
        The sparse network, masks, allocation, label-free metrics and timings.

    Raises
    ------
    SparsemendError
        For bad input; see the functions named above.
    """
    plan, mask = check_choices(model, sparsity, rule, mask, repair, scope)
    searching, limit = rule == AUTO, parse_budget(budget)
    if budget is not None and not searching:
        raise SparsemendError(
            f"rule {rule!r} does not search, so it has no budget", budget, "rule 'auto'"
        )
    held = materialise(batches)
    unseen = materialise(heldout, "heldout") if heldout is not None else None
    if (plan.best or searching) and unseen is None:
        held, unseen = hold_out(held)
    judges = held if unseen is None else unseen
    seconds: dict[str, float] = {}

    diagnosing = needs_diagnosis(rule) and diagnosis is None
    if calibration is None and (searching or diagnosing or mask in NEEDS_CALIBRATION):
        with _timed(seconds, "calibrate"):
            calibration = calibrate(model, held, progress=progress)
    search = None
    if searching:
        assert calibration is not None
        if diagnosis is None:
            with _timed(seconds, "diagnose"):
                diagnosis = damage_curves(model, calibration, plan, mask, progress)
        with _timed(seconds, "search"):
            search = find_allocation(
                model,
                held,
                judges,
                sparsity,
                calibration,
                diagnosis,
                mask,
                plan,
                scope,
                limit,
                progress,
            )
    elif diagnosing and calibration is not None:
        with _timed(seconds, "diagnose"):
            diagnosis = diagnose(model, calibration, plan.diagnosis, mask=mask, progress=progress)
    layers = calibration.layers if calibration is not None else discover(model, held[0])
    if search is not None:
        allocation = search.allocation
    else:
        with _timed(seconds, "allocate"):
            allocation = allocate(model, sparsity, rule, diagnosis=diagnosis, layers=layers)
    copied = copy.deepcopy(model)
    dense, sparse = (copied, model) if inplace else (model, copied)
    with _timed(seconds, "prune"):
        support = start_support(sparse, dense, allocation, mask, calibration)
    tried: Mapping[str, float] = {}
    with _timed(seconds, "repair"):
        if plan.best:
            best = repair_best(sparse, dense, held, judges, layers, support, progress)
            outcome, tried, repair = best.outcome, best.tried, best.repair
            if inplace:
                adopt(sparse, best.model)
            else:
                sparse = best.model
        else:
            outcome = run_plan(sparse, dense, held, layers, plan, scope, support, progress)
            repair = str(plan)
    with _timed(seconds, "compare"):
        closeness = agreement(sparse, dense, judges)
    return CompressionResult(
        model=sparse,
        masks=outcome.masks,
        allocation=allocation,
        rule=rule,
        mask=mask,
        repair=repair,
        scope=scope,
        agreement=closeness,
        heldout=judges is not held,
        diagnosis=diagnosis if searching or needs_diagnosis(rule) else None,
        search=search,
        added_biases=outcome.added_biases,
        tried=tried,
        seconds=seconds,
    )


def check_choices(
    model: nn.Module, sparsity: float, rule: str, mask: str | None, repair: str, scope: str
) -> tuple[RepairPlan, str]:
    """Refuse what :func:`compress` cannot do, before any work.

    Returns
    -------
    The parsed repair, and the mask rule that is meant.
    """
    plan = parse_repair(repair)
    if rule != AUTO:
        check_rule(rule)
    kept_total(sparsity, 1)
    mask = _check_mask(mask, plan)
    check_plan(model, plan, scope)
    return plan, mask


def _check_mask(mask: str | None, plan: RepairPlan) -> str:
    """The mask rule that is meant, or an error where it cannot go with the repair."""
    refits = plan.reconstructs or plan.best
    if mask is None:
        return JOINT if refits else "magnitude"
    if mask == JOINT and not refits:
        raise SparsemendError(
            f"mask {JOINT!r} is chosen jointly with the reconstructed values, but repair is",
            str(plan),
            "'reconstruct', 'reconstruct+batchnorm' or 'best'",
            "choose one of these, or mask 'magnitude'",
        )
    if mask != JOINT:
        get_mask_rule(mask)
    return mask


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
