"""Statistics of one layer pruned to several densities, and what of them is its damage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch import Tensor

from sparsemend.calibration import InputMoments, LayerMoments, OutputStatistics, kept_count
from sparsemend.damage import output_statistics
from sparsemend.damage.nested import nested_statistics
from sparsemend.errors import SparsemendError
from sparsemend.layers import Layer
from sparsemend.masks import MaskProblem, MaskRule, dense_fit
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.recipe.defaults import WEIGHTING
from sparsemend.solvers.ranking import keep_mask

# Channels whose dense variance is below this fraction of the layer's largest are left out.
_DEAD_CHANNEL = 1e-12
# Multiply-adds of one dense product per density beyond which nested masks share their work.
_NESTED_FROM = 1 << 26


def layer_statistics(
    layer: Layer, dense: Tensor, moments: LayerMoments, grid: Sequence[float], rule: MaskRule
) -> OutputStatistics:
    """Paired output statistics [K, C] of a layer pruned to each density of the grid."""
    if not isinstance(moments, InputMoments):
        if rule is not MAGNITUDE or tuple(grid) != moments.densities:
            refuse_wide(layer, moments)
        return moments.outputs.statistics()
    work = dense.numel() * layer.fan_in * len(grid)
    if rule.nested and work > _NESTED_FROM and dense.device.type == "cpu":
        kept = [kept_count(d, layer) for d in grid]
        entries = rule.entries(_problem(rule, layer, dense, moments), kept)
        return nested_statistics(dense, entries, len(kept), moments)
    masks = grid_masks(layer, dense, moments, grid, rule)
    return output_statistics(dense, (dense * keep for keep in masks), moments)


def grid_masks(
    layer: Layer, dense: Tensor, moments: InputMoments, grid: Sequence[float], rule: MaskRule
) -> Iterator[Tensor]:
    """The mask [groups, rows, d] of every density of the grid."""
    problem = _problem(rule, layer, dense, moments)
    ranks = rule.ranks(problem) if rule.nested else None
    for density in grid:
        kept = kept_count(density, layer)
        yield rule.mask(problem, kept) if ranks is None else keep_mask(ranks, kept)


def refuse_wide(layer: Layer, moments: LayerMoments) -> None:
    """Refuse other choices of weights than those whose outputs were measured."""
    if not isinstance(moments, InputMoments):
        raise SparsemendError(
            f"layer {layer.name!r} is too wide (fan-in {layer.fan_in}) for another mask, pattern "
            "or grid than it was calibrated with",
            allowed="mask 'magnitude' on the calibration's densities",
            fix="raise max_fan_in, or pass the same densities to calibrate",
        )


def _problem(rule: MaskRule, layer: Layer, dense: Tensor, moments: InputMoments) -> MaskProblem:
    """What a mask rule may look at of a layer's dense inputs and outputs."""
    fit = dense_fit(dense, moments.covariance) if rule.joint else None
    return MaskProblem(dense, moments, fit, layer.structure)


def mean_damage(
    statistics: OutputStatistics, residuals: Tensor, weighting: str = WEIGHTING
) -> tuple[np.ndarray, np.ndarray, int]:
    """Raw and residual damage [K] over channels, and how many channels were left out."""
    dense = statistics.dense_variance
    alive = dense > _DEAD_CHANNEL * dense.max()
    raw = statistics.raw_distortion[:, alive]
    residual = residuals[:, alive]
    variance = dense[alive]
    dead = int((~alive).sum())
    if not alive.any():  # a constant layer: nothing to damage, nothing to repair
        zero = np.zeros(raw.shape[0])
        return zero, zero, dead
    if weighting == "energy":
        raw, residual = raw.sum(dim=1) / variance.sum(), residual.sum(dim=1) / variance.sum()
    else:
        raw, residual = (raw / variance).mean(dim=1), (residual / variance).mean(dim=1)
    return raw.double().cpu().numpy(), residual.double().cpu().numpy(), dead
