"""Match one pruned layer to the dense one, channel by channel, as far as its inputs support it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.calibration import PairedMoments
from sparsemend.finite import check_finite
from sparsemend.layers import (
    Layer,
    batched,
    channel_last,
    layer_weight,
    mean_patch,
    per_input,
    weight_matrix,
)
from sparsemend.operators import Operator
from sparsemend.repairs.evidence import ColumnVariances, Spread, channel_trust
from sparsemend.repairs.fold import fold, takes_shift

# A gain that evidence changes by less than this fraction is not worth a word.
_NOTABLE = 0.01


@dataclass(frozen=True)
class PairedCall:
    """One call of a layer in the pruned network, and what it should have given.

    Attributes
    ----------
    geometry, x
        How the layer is called, and with what.
    wanted, present
        Dense and pruned outputs, of one shape.
    """

    geometry: Any
    x: Tensor
    wanted: Tensor
    present: Tensor


class PairedOutputs:
    """Paired moments of a layer's dense and pruned outputs, and what these moments rest on.

    Parameters
    ----------
    layer
        The layer.
    device
        Where its outputs are.
    """

    def __init__(self, layer: Layer, device: torch.device) -> None:
        self._layer = layer
        self.moments = PairedMoments.empty(1, layer.rows, device)
        nothing = self.moments.dense.mean
        self._centred, self._raw = Spread.empty(nothing), Spread.empty(nothing)
        self._columns = ColumnVariances.empty(nothing.new_zeros(layer.groups, layer.fan_in))

    def add(self, calls: Sequence[PairedCall]) -> None:
        """Add calls that are made at the same place of the network."""
        wide = self.moments.dense.mean.dtype
        counts, means, variances = [], [], []
        for called in calls:
            pruned = channel_last(called.geometry, called.present)
            self.moments.update(channel_last(called.geometry, called.wanted), pruned.unsqueeze(0))
            outputs = per_input(self._layer, batched(called.geometry, called.present)).to(wide)
            variance, mean = torch.var_mean(outputs, dim=2, correction=0)
            counts += [outputs.shape[2]] * len(outputs)
            means.append(mean)
            variances.append(variance)
            x = batched(called.geometry, called.x).to(wide)
            self._columns.add(
                mean_patch(called.geometry, x), mean_patch(called.geometry, x.square())
            )
        variance, mean = torch.cat(variances), torch.cat(means)
        positions = torch.tensor(counts, dtype=wide, device=mean.device).unsqueeze(1)
        # Of all calls so far: several places of one layer have about the same mean.
        centre = self.moments.pruned.mean[0]
        self._centred.add(positions * (variance + (mean - centre).square()))
        self._raw.add(positions * (variance + mean.square()))

    def trust(self, dense: Tensor, pruned: Tensor, *, shifted: bool) -> Tensor:
        """How far the pruned variances (about zero, unless shifted) can be trusted, [C]."""
        spread = self._centred if shifted else self._raw
        statistics = self.moments.statistics()
        statistics = statistics if shifted else statistics.uncentred()
        columns = self._columns.values(about_zero=not shifted)
        present = statistics.pruned_variance[0]
        return channel_trust(spread.effective, present, pruned, dense, columns)


def match_layer(
    network: nn.Module,
    dense: nn.Module,
    layer: Layer,
    operator: Operator,
    paired: PairedOutputs | None,
    new_biases: bool,
) -> tuple[list[str], tuple[int, ...]]:
    """Match one layer by an operator, in place.

    Returns
    -------
    tuple of list of str and tuple of int
        Module paths that got a bias parameter, and the channels whose gains were held back because
        the inputs do not support them.
    """
    if paired is None:  # no input has reached it in both networks
        return [], ()
    statistics = paired.moments.statistics()
    shifted = takes_shift(network, layer, new_biases=new_biases)
    if not shifted:
        statistics = statistics.uncentred()
    # Outputs without variance give no scale, and the weights kept there must stay as they are:
    # v / eps would let them explode on other inputs, 0 / eps would erase them.
    alive = statistics.pruned_variance[0] > 0
    one = statistics.dense_mean.new_ones(())
    weights = (weight_matrix(layer_weight(model, layer), layer) for model in (dense, network))
    trust = paired.trust(*weights, shifted=shifted)
    asked = operator.gains(statistics)[0]
    scale = operator.gains(statistics.trusted(trust))[0].where(alive, one)
    held = alive & ((scale - asked).abs() > _NOTABLE * asked.abs())
    shift = statistics.dense_mean - scale * statistics.pruned_mean[0] if shifted else None
    what = f"scales and shifts that repair layer {layer.name!r}"
    check_finite(what, scale, *(() if shift is None else (shift,)))
    added = fold(network, layer, scale, shift)
    return added, tuple(held.nonzero().flatten().tolist())
