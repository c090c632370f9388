"""Relative Repairability of every layer at every density, in closed form."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from sparsemend.boundary import public
from sparsemend.calibration import (
    Calibration,
    check_densities,
    kept_count,
)
from sparsemend.damage.pruned_layer import PrunedLayer
from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.grid_masks import GridMasks, refuse_wide
from sparsemend.diagnosis.layer_damage import mean_damage
from sparsemend.diagnosis.sensitivity import with_sensitivities
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import Criterion, LossFunction
from sparsemend.execution.batches import Batches
from sparsemend.execution.offload import device_for, lent, offloading
from sparsemend.execution.rows import as_batches
from sparsemend.execution.threads import threaded_map
from sparsemend.layers import Layer, LayerFilter, LayerSet, layer_weights, weight_matrix
from sparsemend.masks import get_mask_rule
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.patterns import FREE, parse_pattern
from sparsemend.progress import progress_bar, progress_shown
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR, JUDGE, WEIGHTING
from sparsemend.repairs import Repair, get_repair, parse_repair, repairs
from sparsemend.session import Session

Curve = np.ndarray
Result = TypeVar("Result")
WEIGHTINGS = ("relative", "energy")


@public
def diagnose(
    model: nn.Module,
    calibration: Calibration,
    repair: str = DIAGNOSED_REPAIR,
    *,
    densities: Sequence[float] | None = None,
    mask: str = MAGNITUDE.name,
    pattern: str = FREE.name,
    weighting: str = WEIGHTING,
    batches: Batches | None = None,
    judge: str | LossFunction = JUDGE,
    output: str | int | None = None,
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> Diagnosis:
    """Compare each layer's damage before and after repair (arXiv 2605.25508).

    RR_l = Σ_c omega_c D_rep,c / Σ_c omega_c D_raw,c from the calibration moments alone. D_rep is
    the residual with the mean matched, also of layers that a repair would not shift because they
    have neither a bias nor a BatchNorm behind them, and that of full scales, also where a repair
    would hold them back because too few of the inputs speak for them.

    Parameters
    ----------
    model
        The dense network that was calibrated; unchanged.
    calibration
        From :func:`sparsemend.calibrate`.
    repair
        ``none``, ``mean``, ``variance``, ``layerwise``, ``shrinkage``, ``affine``,
        ``reconstruct`` (least squares on the kept weights), or a formula, for which the repair
        stands that has a closed form: variance matching for a recalibration of BatchNorm.
    densities
        Kept fractions in (0, 1]; default 24 from 0.01 to 1, or the one that the pattern has.
    mask
        How weights are chosen: ``"magnitude"``, ``"activation"``, or ``"gradual"``: jointly with
        their reconstruction, for all densities by one splitting, whose supports stand for those
        that are chosen for each.
    pattern
        Which weights can be kept, as in :func:`sparsemend.compress`; at every density the nearest
        count that it allows.
    weighting
        ``"relative"``: omega_c = 1 / v_c, every channel counts the same. ``"energy"``: 1.
    batches
        Unlabelled inputs on which to measure, besides, how much the network's output suffers from
        error in each layer, as rule ``sensitivity`` needs: one forward pass of 64 of them a layer.
    judge, output
        How that is judged, and on which part of the output, as in :func:`sparsemend.agreement`.
    offload
        Compute on this device, as in :func:`sparsemend.compress`.
    progress
        Show a progress bar; default on a terminal.

    Raises
    ------
    SparsemendError
        For an unknown repair, mask, pattern or weighting, or a calibration of another network; for
        batches whose outputs cannot be judged, and judges without batches.
    """
    with progress_shown(progress), offloading(offload, model):
        session = None
        if batches is not None:
            chosen, criterion = LayerFilter.of(pattern=pattern), Criterion(judge, output)
            session = Session.open(
                model,
                as_batches(model, batches),
                calibration=calibration,
                criterion=criterion,
                chosen=chosen,
            )
            session.check_outputs()
        elif (judge, output) != (JUDGE, None):
            raise SparsemendError(
                "without batches there is nothing to judge",
                judge if output is None else output,
                fix="pass batches=, to measure sensitivities on",
            )
        found = diagnose_repairs(
            model,
            calibration,
            [repair],
            densities=densities,
            mask=mask,
            pattern=pattern,
            weighting=weighting,
        )
        if session is None:
            return found[0]
        return with_sensitivities(session, found[0])


def diagnose_repairs(
    model: nn.Module,
    calibration: Calibration,
    names: Sequence[str],
    *,
    densities: Sequence[float] | None = None,
    mask: str = MAGNITUDE.name,
    pattern: str = FREE.name,
    weighting: str = WEIGHTING,
    progress: bool | None = None,
) -> list[Diagnosis]:
    """Several repairs' diagnoses for little more than the price of one: they share statistics.

    Parameters and errors as in :func:`diagnose`, one diagnosis for each of ``names``.
    """
    chosen = [find_residual(name) for name in names]
    grid = check_densities(densities, parse_pattern(pattern))
    rule = get_mask_rule(mask)
    if weighting not in WEIGHTINGS:
        raise SparsemendError("unknown weighting", weighting, ", ".join(WEIGHTINGS))
    layers = LayerFilter.of(pattern=pattern).apply(calibration.layers)
    weights = layer_weights(model, layers)
    with (
        progress_shown(progress),
        progress_bar("diagnose", len(layers)) as advance,
    ):

        def curves(layer: Layer) -> list[tuple[Curve, Curve, int]]:
            moments = lent(calibration.moments[layer.name])
            if calibration.layers[layer.name].pattern != layer.pattern:
                refuse_wide(layer, moments)
            dense = lent(weight_matrix(weights[layer.name].detach(), layer))
            masks = GridMasks(layer, dense, moments, grid, rule)
            statistics = masks.statistics()
            pruned = PrunedLayer(layer, dense, statistics, moments, masks)
            found = []
            for repair in chosen:
                found.append(mean_damage(statistics, _residuals(repair, pruned), weighting))
            advance()
            return found

        damage = _each(curves, layers, weights)
    left_out = {
        layer.name: curves[0][2]
        for layer, curves in zip(layers, damage, strict=True)
        if curves[0][2]
    }
    pruned = np.array([[kept_count(d, x) < x.size for d in grid] for x in layers])
    found = []
    for number, repair in enumerate(chosen):
        raw, residual = (np.stack([curves[number][part] for curves in damage]) for part in (0, 1))
        rr = np.divide(residual, raw, out=np.full_like(raw, np.nan), where=pruned & (raw > 0))
        found.append(
            Diagnosis(
                layers=layers.names,
                densities=np.array(grid),
                raw=raw,
                residual=residual,
                rr=rr,
                repair=repair.name,
                mask=mask,
                pattern=parse_pattern(pattern).name,
                weighting=weighting,
                left_out=dict(left_out),
                inputs=calibration.inputs,
                coverage=layers.coverage,
            )
        )
    return found


def _each(
    work: Callable[[Layer], Result], layers: LayerSet, weights: Mapping[str, Tensor]
) -> list[Result]:
    """Work on every layer; on the CPU several at a time, because they do not depend on each other.

    A single accelerator gains nothing from that.
    """
    if any(device_for(weight).type != "cpu" for weight in weights.values()):
        return [work(layer) for layer in layers]
    return threaded_map(work, layers, cost=lambda layer: float(layer.size * layer.fan_in))


def _residuals(repair: Repair, pruned: PrunedLayer) -> Tensor:
    """D_rep of every density and channel, [K, C]."""
    assert repair.residual is not None, "checked before any work"
    return repair.residual(pruned)


def find_residual(name: str) -> Repair:
    """The repair whose residual stands for a repair or formula in a diagnosis.

    Raises
    ------
    SparsemendError
        If there is no such repair.
    """
    try:
        return get_repair(parse_repair(name).diagnosis)
    except SparsemendError:
        known = [repair.name for repair in repairs().values() if repair.residual is not None]
        raise SparsemendError("unknown repair operator", name, ", ".join(known)) from None
