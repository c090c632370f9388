"""The public repair: parse the formula, run its parts in order."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend._errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, Batches, materialise
from sparsemend.layers import Layer, LayerSet, discover
from sparsemend.repair._channelwise import repair_channelwise
from sparsemend.repair._plan import SCOPES, RepairPlan, parse_repair
from sparsemend.repair.batchnorm import recalibrate, running_norms


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
        ``batchnorm`` (exact), ``batchnorm-ema``, or an operator followed by a recalibration,
        as in ``"variance+batchnorm"``.
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
    check_scope(scope)
    held = materialise(batches)
    layers = discover(pruned, held[0])
    _check_pair(pruned, dense)
    check_plan(pruned, plan)
    repaired = pruned if inplace else copy.deepcopy(pruned)
    added = run_plan(repaired, dense, held, layers, plan, scope, progress)
    if added:
        warnings.warn(
            f"layers that got a bias parameter: {', '.join(added)}",
            SparsemendWarning,
            stacklevel=2,
        )
    return repaired


def run_plan(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: LayerSet,
    plan: RepairPlan,
    scope: str,
    progress: bool | None = None,
) -> list[str]:
    """Run a parsed repair in place; returns the module paths that got a bias parameter."""
    added: list[str] = []
    if plan.operator is not None and plan.operator.matches_mean:
        chosen = covered_layers(pruned, layers, plan)
        added = repair_channelwise(pruned, dense, batches, chosen, plan.operator, scope, progress)
    if plan.batchnorm is not None:
        recalibrate(pruned, batches, plan.batchnorm, progress=progress)
    return added


def covered_layers(model: nn.Module, layers: LayerSet, plan: RepairPlan) -> list[Layer]:
    """The layers that the operator of a plan repairs.

    Recalibration changes the inputs of every layer behind the first BatchNorm, so a scale that
    was fitted before it no longer fits, unless the layer's own BatchNorm absorbs the
    difference. With recalibration, the operator therefore leaves the other layers alone.
    """
    assert plan.operator is not None
    modules = dict(model.named_modules())
    first = next((layer.name for layer in layers if layer.is_convolution), None)
    covered = [layer for layer in layers if plan.operator.covers(layer, layer.name == first)]
    if plan.batchnorm is None:
        return covered
    return [x for x in covered if x.norm is not None and isinstance(modules[x.norm], _BatchNorm)]


def check_scope(scope: str) -> None:
    """Refuse an unknown scope."""
    if scope not in SCOPES:
        raise SparsemendError("unknown repair scope", scope, ", ".join(SCOPES))


def check_plan(model: nn.Module, plan: RepairPlan) -> None:
    """Refuse a repair that the network cannot have, before any work."""
    if plan.batchnorm is not None:
        running_norms(model)


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
