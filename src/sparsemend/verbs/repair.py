"""The public repair: parse the formula, run its parts in order."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn

from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batches, materialise
from sparsemend.layers import discover
from sparsemend.masks import find_masks
from sparsemend.repairs import Support, check_plan, parse_repair, run_plan
from sparsemend.search import hold_out, repair_best


def repair(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Batches,
    repair: str = "variance",
    *,
    scope: str = "sequential",
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
        Change the pruned network that was passed.
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
        For an unknown repair or scope, batches that are empty, labelled or not finite, or
        networks that do not belong together.
    """
    plan = parse_repair(repair)
    check_plan(pruned, plan, scope)
    held = materialise(batches)
    layers = discover(pruned, held[0])
    _check_pair(pruned, dense)
    masks = find_masks(pruned, layers)
    support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
    if plan.best:
        fit, unseen = hold_out(held)
        best = repair_best(pruned, dense, fit, unseen, layers, support, progress)
        repaired, added = best.model, best.outcome.added_biases
        if inplace:
            adopt(pruned, repaired)
            repaired = pruned
    else:
        repaired = pruned if inplace else copy.deepcopy(pruned)
        outcome = run_plan(repaired, dense, held, layers, plan, scope, support, progress)
        added = outcome.added_biases
    if added:
        warnings.warn(
            f"layers that got a bias parameter: {', '.join(added)}",
            SparsemendWarning,
            stacklevel=2,
        )
    return repaired


def adopt(model: nn.Module, source: nn.Module) -> None:
    """Copy every parameter and buffer of ``source`` into ``model``, adding biases it lacks."""
    modules = dict(model.named_modules())
    with torch.no_grad():
        for path, module in source.named_modules():
            own = modules[path]
            for name, value in module._parameters.items():
                present = own._parameters.get(name)
                if present is not None and value is not None:
                    present.copy_(value)
                elif value is not None:
                    own.register_parameter(name, value)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    own._buffers[name].copy_(buffer)


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
