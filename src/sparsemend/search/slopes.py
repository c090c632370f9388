"""How the loss answers to the density of every layer, from one gradient instead of many repairs.

Weights at the margin (kept at 1.5 times the count, not at the count divided by 1.5) are what a
change of density brings or takes. To first order each changes the loss by its dense value times
the gradient at it, so their sum is a central difference for the layer, and one backward pass
gives that of all layers.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from sparsemend.allocation import Quota
from sparsemend.evaluation import loss_factors
from sparsemend.execution.batches import batch_size, call, evaluation_mode
from sparsemend.execution.copies import copied
from sparsemend.layers import (
    Call,
    Layer,
    LayerCalls,
    channel_last,
    channel_shape,
    layer_gradient,
    layer_parameter,
    layer_weights,
)
from sparsemend.masks import MaskRule, Masks, choose_masks
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.repairs import Restored, running_norms
from sparsemend.search.directions import Array
from sparsemend.session import Session

# Counts between which weights are at the margin: these times and divided by it.
MARGIN = 1.5
# Variance below which a channel counts as constant.
_TINY = 1e-12
# Of a layer, as a multiple of the average layer's share of the kept weights.
_LEAST_INERTIA = 3.0


def margins(
    counts: Sequence[int], sizes: Sequence[int], margin: float = MARGIN
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Smaller and larger counts between which weights are at the margin; at least 1, at most all.

    Parameters
    ----------
    counts
        Kept counts.
    sizes
        Number of weights of each layer.
    margin
        Factor, above 1.
    """
    below = tuple(max(1, math.floor(n / margin)) for n in counts)
    above = tuple(min(size, math.ceil(n * margin)) for n, size in zip(counts, sizes, strict=True))
    return below, above


@dataclass(frozen=True)
class Marginal:
    """The weights that a change of density would bring or take.

    Attributes
    ----------
    weights
        Layer name → boolean tensor of the stored shape.
    ratios
        Larger over smaller count of every layer, [L].
    """

    weights: Masks
    ratios: list[float]


def at_the_margin(
    session: Session, counts: Mapping[str, int], rule: MaskRule = MAGNITUDE
) -> Marginal:
    """Which weights of every layer are at the margin.

    Parameters
    ----------
    session
        The dense network and its inputs.
    counts
        Layer → kept count, in execution order.
    rule
        Mask rule with nested masks.
    """
    around = margins(tuple(counts.values()), [layer.size for layer in session.layers])
    ends = [
        tuple(layer.structure.nearest(n) for layer, n in zip(session.layers, end, strict=True))
        for end in around
    ]
    calibration = session.moments_for(rule.needs)
    least, most = (
        choose_masks(
            session.model,
            dict(zip(counts, end, strict=True)),
            rule.name,
            layers=session.layers,
            calibration=calibration,
        )
        for end in ends
    )
    ratios = [more / less for less, more in zip(*ends, strict=True)]
    return Marginal({name: most[name] & ~least[name] for name in counts}, ratios)


def density_slopes(
    session: Session,
    model: nn.Module,
    marginal: Marginal,
    *,
    restored: Restored = "nothing",
    unshifted: Collection[str] = (),
) -> Array | None:
    """d loss / d log density of every layer, for class scores in nats, [L].

    Σ_i w_i · ∂loss/∂w_i / log(ratio) over the weights i at the margin, w_i the dense values.

    Parameters
    ----------
    session
        The dense network and the inputs to measure with: those that repairs see.
    model
        The repaired network; unchanged. A copy of it is held, and of one batch at a time the
        activations of all layers, as for a step of training.
    marginal
        From :func:`at_the_margin`.
    restored
        Where the repair would restore means and variances of channels after a change of weights,
        so that only what changes besides these counts: in no place, in front of every BatchNorm
        that keeps running statistics (``"norms"``, with the statistics of each batch; batches of
        one input are left out), or behind every layer (``"layers"``).
    unshifted
        Layers that cannot be shifted: ``"layers"`` restores E z² behind them instead.

    Returns
    -------
    Array or None
        None where the loss has no gradient, or it is not finite.
    """
    dense, layers, ratios = session.model, session.layers, marginal.ratios
    model = copied(model).requires_grad_(False)
    weights = layer_weights(dense, layers)
    for layer in layers:
        layer_parameter(model, layer).requires_grad_()
    jury = session.jury
    batches = [b for b in session.seen if restored != "norms" or batch_size(b) > 1]
    factors = loss_factors(jury, dense, batches)
    with evaluation_mode(model, dense):
        if restored == "norms":
            for norm in running_norms(model):
                norm.train()
        after = partial(_restore, unshifted) if restored == "layers" else None
        count = 0
        for batch in batches:
            expected = jury.read(call(dense, batch), batch)
            with torch.enable_grad():
                with LayerCalls(model, layers, after=after):
                    ours = jury.read(call(model, batch), batch)
                losses = jury.losses(expected, ours)
                sums = [factor * loss.sum() for factor, loss in zip(factors, losses, strict=True)]
                distance = sum(sums[1:], start=sums[0])
            if not distance.requires_grad:
                return None
            try:
                distance.backward()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:  # what the network changes in place cannot be differentiated
                return None
            count += len(losses[0])
    found = np.zeros(len(layers))
    for position, layer in enumerate(layers):
        gradient = layer_gradient(model, layer)
        if gradient is not None and ratios[position] > 1:
            chosen = marginal.weights[layer.name]
            products = weights[layer.name][chosen].double() * gradient[chosen].double()
            found[position] = float(products.sum()) / (count * math.log(ratios[position]))
    return found if count and np.isfinite(found).all() else None


def _restore(unshifted: Collection[str], layer: Layer, called: Call, z: Tensor) -> Tensor:
    """The output as it is, its gradient without what changes means and variances of channels.

    Where these are not shifted, without what changes their second moments about zero.
    """
    shape = channel_shape(layer)
    wide = z.to(torch.promote_types(z.dtype, torch.float32))
    columns = channel_last(called.geometry, wide)
    shifted = layer.name not in unshifted
    mean = columns.mean(dim=0) if shifted else columns.new_zeros(columns.shape[1])
    # A constant channel has no scale to restore, and no gradient through it.
    spread = (columns - mean).square().mean(dim=0).clamp_min(_TINY).sqrt()
    mean, spread = mean.reshape(shape), spread.reshape(shape)
    restored: Tensor = mean.detach() + spread.detach() * ((wide - mean) / spread)
    return restored.to(z.dtype)


def downhill(slopes: Array, counts: Sequence[int], quota: Quota, radius: float) -> Array:
    """Change of the log densities that lowers the loss most, within a radius, [L].

    Minimises slopes · x + Σ_l q_l x_l² / 2 under Σ_l k_l x_l = 0, that is with an unchanged
    budget, k_l the layer's share of the kept weights or of what these cost; x is then scaled so
    that the largest change is ``radius``. q_l = max(k_l, 3 / L): changing the density of a small
    layer is not taken to be free, or its noise would decide. Layers that are dense gain nothing.

    Parameters
    ----------
    slopes
        d loss / d log density, [L].
    counts
        Kept counts.
    quota
        What the layers may keep.
    radius
        Largest change of a log density.
    """
    kept = np.asarray(counts, dtype=np.float64)
    spent = kept * np.asarray(quota.prices, dtype=np.float64) if quota.prices else kept
    share = spent / spent.sum()
    inertia = np.maximum(share, _LEAST_INERTIA / len(share))
    free = np.ones(len(share), dtype=bool)
    change = np.zeros(len(share))
    for _ in range(2):  # once more without the dense layers that wanted more
        price = (share * slopes / inertia)[free].sum() / (share**2 / inertia)[free].sum()
        change = np.where(free, (price * share - slopes) / inertia, 0.0)
        free &= ~((kept >= np.asarray(quota.sizes)) & (change > 0))
        if free.all() or not free.any():
            break
    largest = np.abs(change).max()
    return change * (radius / largest) if largest > 0 else change
