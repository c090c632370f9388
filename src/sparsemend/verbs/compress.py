"""The whole job in one call: calibrate, diagnose, allocate, prune, repair, compare."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext

from torch import nn

from sparsemend.allocation import Allocation
from sparsemend.calibration import Calibration
from sparsemend.diagnosis import Diagnosis, session_diagnosis
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import LossFunction
from sparsemend.execution.batches import Batches, materialise
from sparsemend.execution.restoring import restored_on_error
from sparsemend.layers.refusals import check_alone, check_apart, check_copy, refuse_unsupported
from sparsemend.progress import progress_shown
from sparsemend.recipe import Recipe
from sparsemend.recipe.defaults import JUDGE, NEW_BIASES, REPAIR, RULE, SCOPE
from sparsemend.repairs import Terms
from sparsemend.search import damage_curves, find_allocation, start_support
from sparsemend.session import Session
from sparsemend.verbs.allocate import allocate
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.verification import shapes_of, verify_result


def compress(
    model: nn.Module,
    batches: Batches,
    sparsity: float,
    rule: str | Allocation = RULE,
    mask: str | None = None,
    repair: str = REPAIR,
    *,
    scope: str = SCOPE,
    heldout: Batches | None = None,
    budget: float | str | None = None,
    judge: str | LossFunction = JUDGE,
    output: str | int | None = None,
    new_biases: bool = NEW_BIASES,
    calibration: Calibration | None = None,
    diagnosis: Diagnosis | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
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
        all of these, for the allocation whose repaired network is closest to the dense one; or
        an allocation of this sparsity.
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
    judge, output
        How closeness to the dense network is judged, and on which part of the network's output
        alone, as in :func:`sparsemend.agreement`. By default every floating-point tensor of the
        output is judged as its name and shape suggest. Checked on one batch before any work.
    new_biases
        Give a bias to layers that have neither one nor a BatchNorm behind them, so that the
        repair can shift their outputs. By default no parameter is added, so the result loads
        into the original architecture; such layers are fitted without a shift.
    calibration, diagnosis
        Results of earlier calls on the same network and inputs, to save their time.
    include, exclude
        Which layers to prune, by name, pattern or class, as in :func:`sparsemend.discover`; the
        others stay as they are and do not count in the sparsity.
    inplace
        Change the model that was passed; on an error it is as it was, for which a copy of its
        parameters and buffers is held besides the one that serves as the dense network.
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
    recipe = Recipe(
        sparsity,
        rule,
        mask,
        repair,
        scope,
        budget,
        judge,
        output,
        new_biases,
        include,
        exclude,
    )
    refuse_unsupported(model)
    recipe.check(model)
    if inplace:  # the session sees a copy, which cannot show what is wrong with copies
        batches = materialise(batches)
        check_copy(model, batches[0])
    with progress_shown(progress):
        session = Session.open(
            # In place, the dense network is a copy.
            copy.deepcopy(model) if inplace else model,
            batches,
            heldout,
            calibration=calibration,
            criterion=recipe.criterion,
            chosen=recipe.chosen,
            judging=recipe.judges,
        )
        with restored_on_error(model) if inplace else nullcontext():
            return run_recipe(session, recipe, diagnosis=diagnosis, into=model if inplace else None)


def run_recipe(
    session: Session,
    recipe: Recipe,
    *,
    diagnosis: Diagnosis | None = None,
    into: nn.Module | None = None,
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
    """
    seconds: dict[str, float] = {}
    session.check_outputs()
    diagnosing = recipe.needs_diagnosis and diagnosis is None
    reads_moments = recipe.searches or diagnosing or recipe.mask_rule.needs == "moments"
    if reads_moments and not session.calibrated:
        with _timed(seconds, "calibrate"):
            _ = session.calibration
    search = None
    if recipe.searches:
        if diagnosis is None:
            with _timed(seconds, "diagnose"):
                diagnosis = damage_curves(session, recipe)
        with _timed(seconds, "search"):
            search = find_allocation(session, recipe, diagnosis)
        allocation = search.allocation
    else:
        if diagnosing:
            with _timed(seconds, "diagnose"):
                repair, mask = recipe.formula.diagnosis, recipe.mask_rule.name
                diagnosis = session_diagnosis(session, repair, mask)
        with _timed(seconds, "allocate"):
            allocation = _allocation(session, recipe, diagnosis)
    network = copy.deepcopy(session.model) if into is None else into
    check_apart(network, session.model)
    copied, original = (network, session.model) if into is None else (session.model, network)
    check_alone(copied, [original], session.seen[0])
    with _timed(seconds, "prune"):
        support = start_support(session, network, allocation, recipe.mask_rule)
    with _timed(seconds, "repair"):
        terms = Terms(support, recipe.scope, new_biases=recipe.new_biases)
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
    return CompressionResult(
        model=network,
        masks=outcome.masks,
        allocation=allocation,
        rule=recipe.rule_name,
        mask=recipe.mask_rule.name,
        repair=outcome.repair or str(recipe.formula),
        scope=recipe.scope,
        agreement=closeness,
        heldout=session.heldout,
        diagnosis=diagnosis if recipe.searches or recipe.needs_diagnosis else None,
        search=search,
        layers=session.layers,
        added_biases=outcome.added_biases,
        unshifted=outcome.unshifted,
        tried=outcome.tried,
        seconds=seconds,
    )


def _allocation(session: Session, recipe: Recipe, diagnosis: Diagnosis | None) -> Allocation:
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
        return recipe.rule
    return allocate(
        session.model, recipe.sparsity, recipe.rule, diagnosis=diagnosis, layers=session.layers
    )


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
