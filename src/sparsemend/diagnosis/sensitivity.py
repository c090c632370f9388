"""How much the network's output suffers from what pruning breaks in one layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from sparsemend.calibration import DEFAULT_DENSITIES, InputMoments, LayerMoments, kept_count
from sparsemend.diagnosis.diagnosis import Diagnosis
from sparsemend.diagnosis.grid_masks import GridMasks
from sparsemend.diagnosis.layer_damage import mean_damage
from sparsemend.evaluation import Reference
from sparsemend.execution.batches import evaluation_mode, spread_inputs
from sparsemend.execution.offload import lent
from sparsemend.layers import (
    Call,
    Layer,
    LayerCalls,
    channel_shape,
    kind_named,
    layer_weight,
    stored_weight,
    weight_matrix,
)
from sparsemend.masks import MaskProblem
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.operators import OPERATORS
from sparsemend.progress import progress_bar
from sparsemend.recipe.defaults import DIAGNOSED_REPAIR
from sparsemend.session import Session

# Relative variance of the error, about what high sparsities leave: losses grow in other proportions
# where errors are small.
ERROR = 0.5
# How many inputs are enough to tell layers apart.
INPUTS = 64
_OPERATOR = OPERATORS[DIAGNOSED_REPAIR]

After = Callable[[Layer, Call, Tensor], Tensor]


def with_sensitivities(session: Session, diagnosis: Diagnosis) -> Diagnosis:
    """A diagnosis with sensitivities: its own, else those on the inputs that repairs see.

    Parameters
    ----------
    session
        Of the network that was diagnosed. They are measured once.
    diagnosis
        Of the same layers.
    """
    if diagnosis.sensitivities is not None:
        return diagnosis
    found = session.once("sensitivities", lambda: sensitivities(session))
    by_layer = np.array([found[name] for name in diagnosis.layers])
    return dataclasses.replace(diagnosis, sensitivities=by_layer)


def sensitivities(session: Session) -> dict[str, float]:
    """Layer name → loss of the network's output per relative variance of error in that layer.

    The error is one that pruning makes: the layer alone keeps its largest weights, at the density
    of a grid that leaves half of its outputs' variance after matching of means and variances,
    and is matched so. The loss is divided by exactly what is left. Random noise of the same
    variance would be heard quite differently in layers with channels of very different variances,
    such as the last ones of a transformer's blocks. One forward pass of some inputs per layer.

    Parameters
    ----------
    session
        Of the dense network, which stays as it is. Measured by its jury on a part of the inputs
        that repairs see, as far as there are so many from all their batches alike.

    Returns
    -------
    dict
        At least 0 up to rounding; 0 where pruning breaks nothing. Where outputs become infinite,
        the largest of the others.
    """
    model, layers = session.model, session.layers
    reference = Reference(model, spread_inputs(session.seen, INPUTS), session.jury)
    found: dict[str, float] = {}
    with progress_bar("sensitivities", len(layers)) as advance, evaluation_mode(model):
        for layer in layers:
            dense = lent(weight_matrix(layer_weight(model, layer), layer))
            broken, error = _broken(layer, dense, lent(session.calibration.moments[layer.name]))
            found[layer.name] = 0.0
            if broken is not None:
                with LayerCalls(model, [layer], after=broken):
                    found[layer.name] = reference.loss(lambda: model) / error
            advance()
    most = max(filter(math.isfinite, found.values()), default=1.0)
    return {name: value if math.isfinite(value) else most for name, value in found.items()}


def _broken(layer: Layer, dense: Tensor, moments: LayerMoments) -> tuple[After | None, float]:
    """What makes the layer run as if it were pruned alone, and the relative variance of its error.

    None where no density of the grid leaves any error.
    """
    grid = DEFAULT_DENSITIES if isinstance(moments, InputMoments) else moments.densities
    statistics = GridMasks(layer, dense, moments, grid, MAGNITUDE).statistics()
    _, left, _ = mean_damage(statistics, _OPERATOR.residual(statistics))
    k = int(np.abs(left - ERROR).argmin())
    if left[k] <= np.finfo(np.float32).eps:
        return None, 0.0
    problem = MaskProblem(dense, structure=layer.structure)
    mask = MAGNITUDE.mask(problem, kept_count(grid[k], layer))
    scale = _OPERATOR.scale(statistics)[k].to(dense)
    shift = (scale * statistics.pruned_mean[k] - statistics.dense_mean).to(dense)
    change = scale.reshape(*dense.shape[:2], 1) * dense * mask - dense
    weight = stored_weight(change, layer)

    def after(layer: Layer, called: Call, z: Tensor) -> Tensor:
        x = called.x.to(weight.dtype)
        error = kind_named(layer.kind).apply(called.geometry, x, weight, None)
        changed: Tensor = z + (error - shift.reshape(channel_shape(layer)))
        return changed.to(z.dtype)

    return after, float(left[k])
