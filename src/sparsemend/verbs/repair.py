"""The public repair: parse the formula, run its parts in order."""

from __future__ import annotations

import copy
import warnings
from contextlib import nullcontext

from torch import nn

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batches
from sparsemend.execution.restoring import restored_on_error
from sparsemend.finite import check_network
from sparsemend.masks import find_masks
from sparsemend.progress import progress_shown
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR, SCOPE
from sparsemend.repairs import Support, Terms, parse_repair
from sparsemend.session import Session


def repair(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Batches,
    repair: str = DIAGNOSED_REPAIR,
    *,
    scope: str = SCOPE,
    inplace: bool = False,
    progress: bool | None = None,
) -> nn.Module:
    """Repair a pruned network from unlabelled inputs, without gradients (method, section 4).

    Held in memory: the batches, and of every batch in both networks what the networks need at
    the layer at work.

    Parameters
    ----------
    pruned
        The pruned network; unchanged unless ``inplace``.
    dense
        The network it was pruned from.
    batches
        Unlabelled calibration batches, or one tensor [N, ...].
    repair
        ``none``, ``mean``, ``variance``, ``layerwise``, ``shrinkage`` (ASR), ``affine``,
        ``reconstruct`` (least squares on the kept weights), ``batchnorm`` (exact),
        ``batchnorm-ema``, or one of the first seven followed by a recalibration, as in
        ``"variance+batchnorm"``; or ``best``: the ending among these that is closest to the
        dense network on the last fifth of the batches, which it does not see.
    scope
        ``"sequential"``: layer by layer, inputs from the network repaired so far.
        ``"one-shot"``: all layers from one pass.
    inplace
        Change the pruned network that was passed; on an error it is as it was, for which a copy
        of its parameters and buffers is held.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    nn.Module
        The repaired network; zeros stay zeros. A layer without bias and without BatchNorm
        behind it gets a bias parameter, and a warning says which.

    Raises
    ------
    SparsemendError
        For an unknown repair or scope, batches that are empty, labelled or not finite, networks
        that do not belong together, or numbers that are not finite on the way.
    """
    formula = parse_repair(repair)
    formula.check(pruned, scope)
    with progress_shown(progress):
        session = Session.open(dense, batches, judging=formula.judges)
        _check_pair(pruned, dense)
        masks = find_masks(pruned, session.layers)
        support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
        check_network(pruned, "the pruned network")
        repaired = pruned if inplace else copy.deepcopy(pruned)
        with restored_on_error(repaired) if inplace else nullcontext():
            outcome = formula.run(session, repaired, Terms(support, scope))
    if outcome.added_biases:
        warnings.warn(
            f"layers that got a bias parameter: {', '.join(outcome.added_biases)}",
            SparsemendWarning,
            stacklevel=2,
        )
    return repaired


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
