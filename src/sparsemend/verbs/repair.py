"""The public repair: parse the formula, run its parts in order."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import torch
from torch import nn

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import Criterion, LossFunction
from sparsemend.execution.batches import Batches
from sparsemend.execution.copies import copied
from sparsemend.execution.offload import offloading
from sparsemend.execution.restoring import restored_on_error
from sparsemend.execution.rows import as_batches
from sparsemend.finite import check_network
from sparsemend.layers.refusals import check_alone, check_apart, check_copy, refuse_unsupported
from sparsemend.masks import Masks, apply_masks, find_masks
from sparsemend.progress import progress_shown
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR, JUDGE, NEW_BIASES, SCOPE
from sparsemend.recipe.training import parse_distill
from sparsemend.repairs import Support, Terms, parse_repair
from sparsemend.session import Session
from sparsemend.verbs.verification import shapes_of, verify_result


@public
def repair(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Batches,
    repair: str = DIAGNOSED_REPAIR,
    *,
    scope: str = SCOPE,
    judge: str | LossFunction = JUDGE,
    output: str | int | None = None,
    new_biases: bool = NEW_BIASES,
    distill: float | str | None = None,
    inplace: bool = False,
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> nn.Module:
    """Repair a pruned network from unlabelled inputs (method, section 4).

    Held in memory: the batches, and of every batch in both networks what the networks need at
    the layer at work.

    Parameters
    ----------
    pruned
        The pruned network; unchanged unless ``inplace``.
    dense
        The network it was pruned from.
    batches
        Unlabelled calibration batches of any form that :func:`sparsemend.compress` takes.
    repair
        ``none``, ``mean``, ``variance``, ``layerwise``, ``shrinkage`` (ASR), ``affine``,
        ``reconstruct`` (least squares on the kept weights), ``batchnorm`` (exact),
        ``batchnorm-ema``, or one of the first seven followed by a recalibration, as in
        ``"variance+batchnorm"``; any of these followed by ``distill``, which trains what
        is kept towards the dense network, as in ``"reconstruct+distill"``; or ``best``: the ending
        that is closest to the dense network. ``distill`` and ``best`` judge that on the last fifth
        of the batches, which no repair then sees.
    scope
        ``"sequential"``: layer by layer, inputs from the network repaired so far.
        ``"one-shot"``: all layers from one pass.
    judge, output
        How ``best`` judges closeness, and on which part of the network's output alone, as in
        :func:`sparsemend.agreement`. Only where a final layer's outputs are judged as class
        scores does ``reconstruct`` fit the probabilities of classes.
    new_biases
        Give a bias to layers that have neither one nor a BatchNorm behind them, with a warning
        that names them. By default no parameter is added: they are fitted without a shift.
    distill
        How long ``distill`` trains, and whether ``best`` does, as in :func:`sparsemend.compress`.
    inplace
        Change the pruned network that was passed; on an error it is as it was, for which a copy
        of its parameters and buffers is held.
    offload
        Compute on this device, as in :func:`sparsemend.compress`.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    nn.Module
        The repaired network; zeros stay zeros.

    Raises
    ------
    SparsemendError
        For an unknown repair or scope, batches that are empty, labelled or not finite, networks
        that do not belong together, or numbers that are not finite on the way.
    """
    formula = parse_repair(repair)
    training = parse_distill(distill, formula)
    refuse_unsupported(pruned)
    formula.check(pruned, scope)
    criterion = Criterion(judge, output)
    with progress_shown(progress), offloading(offload, pruned, dense):
        session = Session.open(
            dense, as_batches(dense, batches), criterion=criterion, judging=formula.judges
        )
        _check_pair(pruned, dense)
        if formula.judges or criterion != Criterion():
            session.check_outputs()
        check_copy(pruned, session.seen[0])
        masks = find_masks(pruned, session.layers)
        _check_order(masks, find_masks(dense, session.layers))
        support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
        check_network(pruned, "the pruned network")
        repaired, parameters = pruned if inplace else copied(pruned), shapes_of(pruned)
        if not inplace:
            check_apart(repaired, pruned)
            check_apart(repaired, dense)
            check_alone(repaired, [pruned, dense], session.seen[0])
        with restored_on_error(repaired) if inplace else nullcontext():
            apply_masks(repaired, masks, session.layers)  # -0 becomes +0
            terms = Terms(support, scope, new_biases=new_biases, distill=training)
            outcome = formula.run(session, repaired, terms)
            verify_result(
                repaired,
                parameters,
                outcome.masks,
                support.counts,
                session.layers,
                outcome.added_biases,
            )
    if outcome.added_biases:
        warnings.warn(
            f"layers that got a bias parameter: {', '.join(outcome.added_biases)}",
            SparsemendWarning,
            stacklevel=3,
        )
    return repaired


def _check_order(pruned: Masks, dense: Masks) -> None:
    """Refuse a dense network in the place of the pruned one, where the other has the zeros."""
    ours, theirs = (all(bool(mask.all()) for mask in masks.values()) for masks in (pruned, dense))
    if ours and not theirs:
        raise SparsemendError(
            "the pruned network has no zeros, but the dense one has",
            fix="pass the pruned network first, and the dense one second",
        )


def _check_pair(pruned: nn.Module, dense: nn.Module) -> None:
    ours = {name: tuple(p.shape) for name, p in pruned.named_parameters()}
    theirs = {name: tuple(p.shape) for name, p in dense.named_parameters()}
    different = [name for name in theirs if ours.get(name) != theirs[name]]
    # An earlier repair may have added a bias, nothing else.
    different += [name for name in ours if name not in theirs and not name.endswith(".bias")]
    if different:
        raise SparsemendError(
            "the pruned and the dense network do not belong together: parameters differ in shape",
            different[:5],
            fix="pass the network that this one was pruned from",
        )
