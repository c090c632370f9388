"""Run a parsed repair on a network: operator or reconstruction, then recalibration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch
from sparsemend.layers import Layer, LayerSet
from sparsemend.repairs.batchnorm import recalibrate, running_norms
from sparsemend.repairs.channelwise import repair_channelwise
from sparsemend.repairs.fit import Settings
from sparsemend.repairs.formula import SCOPES, RepairPlan
from sparsemend.repairs.reconstruction import reconstruct


@dataclass(frozen=True)
class Support:
    """Which weights a repair may use.

    Attributes
    ----------
    counts
        Layer name → number of weights to keep.
    masks
        Layer name → boolean tensor of the stored shape; None where the repair is to choose.
    """

    counts: Mapping[str, int]
    masks: Mapping[str, Tensor] | None


@dataclass(frozen=True)
class Outcome:
    """What a repair did besides changing the network in place."""

    masks: Mapping[str, Tensor]
    added_biases: tuple[str, ...] = ()


def run_plan(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: LayerSet,
    plan: RepairPlan,
    scope: str,
    support: Support,
    progress: bool | None = None,
    settings: Settings | None = None,
) -> Outcome:
    """Run a parsed repair in place.

    Parameters
    ----------
    pruned
        The network to repair; still dense where ``support`` has no masks.
    dense, batches, layers, scope, progress
        As in :func:`sparsemend.repairs`.
    plan
        A plan that names its parts (not ``best``).
    support
        Counts, and masks unless the reconstruction chooses them.
    settings
        Constants of a reconstruction.
    """
    added: tuple[str, ...] = ()
    masks = support.masks
    if plan.reconstructs:
        done = reconstruct(
            pruned, dense, batches, layers, masks, support.counts, settings, progress
        )
        masks, added = done.masks, done.added_biases
    elif plan.operator is not None and plan.operator.matches_mean and not _cancelled(plan):
        chosen = covered_layers(pruned, layers, plan)
        repaired = repair_channelwise(
            pruned, dense, batches, chosen, plan.operator, scope, progress
        )
        added = tuple(repaired)
    if plan.batchnorm is not None:
        recalibrate(pruned, batches, plan.batchnorm, progress=progress)
    assert masks is not None, "only a reconstruction chooses masks"
    return Outcome(masks, added)


def _cancelled(plan: RepairPlan) -> bool:
    """Whether the recalibration would undo all that the operator does (method, section 4).

    With recalibration an operator covers the layers in front of a BatchNorm only, and pooled
    statistics cancel a positive scale and a shift there up to BatchNorm's eps: all that running
    the operator would add is that eps, weighing less or more.
    """
    assert plan.operator is not None
    return plan.batchnorm == "exact" and plan.operator.positive


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


def check_plan(model: nn.Module, plan: RepairPlan, scope: str) -> None:
    """Refuse a repair that the network or the scope cannot have, before any work."""
    check_scope(scope)
    if (plan.reconstructs or plan.best) and scope != "sequential":
        raise SparsemendError(
            f"repair {str(plan)!r} works layer by layer", scope, "scope 'sequential'"
        )
    if plan.batchnorm is not None:
        running_norms(model)
