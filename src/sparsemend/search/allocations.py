"""Where a search for an allocation starts: the plain rules, and damage weighed by sensitivity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from torch import nn

from sparsemend.allocation import RULES, Allocation, allocate_layers
from sparsemend.calibration import Calibration, InputMoments
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet, layer_weights
from sparsemend.masks import JOINT
from sparsemend.repairs import RepairPlan
from sparsemend.search.auto import search_allocation
from sparsemend.search.budget import Budget
from sparsemend.search.objective import Objective
from sparsemend.search.result import AllocationSearch
from sparsemend.search.sensitivity import sensitivities

AUTO = "auto"
# Measuring sensitivities takes about as long as a repair.
_SENSITIVITY_COST = 1.0


def find_allocation(
    dense: nn.Module,
    batches: Sequence[Batch],
    heldout: Sequence[Batch],
    sparsity: float,
    calibration: Calibration,
    diagnosis: Diagnosis,
    mask: str,
    plan: RepairPlan,
    scope: str,
    budget: Budget,
    progress: bool | None = None,
) -> AllocationSearch:
    """Rule ``auto``: the allocation whose repaired network is closest to the dense one.

    Parameters
    ----------
    dense
        The dense network; unchanged.
    batches
        Unlabelled inputs that repairs see.
    heldout
        Inputs to judge on, none of them in ``batches``.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1).
    calibration, diagnosis
        Of the network; the diagnosis is for the rules that need one.
    mask, plan, scope
        Mask rule and repair of the trials.
    budget
        When to stop.
    progress
        Show progress bars; default on a terminal.
    """
    layers = calibration.layers
    objective = Objective(dense, batches, heldout, layers, mask, plan, scope, calibration, progress)

    def further() -> dict[str, tuple[int, ...]]:
        found = sensitive_allocation(
            dense, layers, sparsity, diagnosis, heldout[:1], progress=progress
        )
        return {"sensitive damage": tuple(found.values())}

    return search_allocation(
        layers,
        plain_allocations(dense, layers, sparsity, diagnosis),
        objective,
        budget,
        further=further,
        further_cost=_SENSITIVITY_COST,
        progress=progress,
    )


def damage_curves(
    dense: nn.Module,
    calibration: Calibration,
    plan: RepairPlan,
    mask: str,
    progress: bool | None = None,
) -> Diagnosis:
    """The diagnosis that a search goes by: of the repair used, as far as that is cheap.

    Magnitude masks stand for gradual ones, whose choice costs as much as a repair for every
    density; where a layer is too wide for d × d moments, ``variance`` and magnitude masks
    stand for all.
    """
    wide = not all(isinstance(m, InputMoments) for m in calibration.moments.values())
    repair = "variance" if wide else plan.diagnosis
    mask = "magnitude" if wide or mask == JOINT else mask
    return diagnose(dense, calibration, repair, mask=mask, progress=progress)


def plain_allocations(
    dense: nn.Module, layers: LayerSet, sparsity: float, diagnosis: Diagnosis
) -> dict[str, Allocation]:
    """Every plain rule's allocation; the rules that lead most often come first.

    A rule that cannot divide this budget among these layers is left out.
    """
    weights = layer_weights(dense, layers)
    found: dict[str, Allocation] = {}
    for name, rule in sorted(RULES.items(), key=lambda item: item[1].rank):
        try:
            found[name] = allocate_layers(layers, weights, sparsity, name, diagnosis=diagnosis)
        except SparsemendError:
            if not rule.may_refuse:
                raise
    return found


def sensitive_allocation(
    dense: nn.Module,
    layers: LayerSet,
    sparsity: float,
    diagnosis: Diagnosis,
    batches: Sequence[Batch],
    progress: bool | None = None,
) -> Allocation:
    """Least damage after repair, each layer's weighed by what noise in it does to the output.

    Minimises Σ_l s_l · residual_l(density_l) under the budget, s_l from
    :func:`.sensitivity.sensitivities` on ``batches``.
    """
    measured = sensitivities(dense, batches, layers, progress=progress)
    weights = np.array([measured[name] for name in diagnosis.layers])
    weighted = dataclasses.replace(diagnosis, residual=diagnosis.residual * weights[:, None])
    return allocate_layers(layers, layer_weights(dense, layers), sparsity, "rr", diagnosis=weighted)
