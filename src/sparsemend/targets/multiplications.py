"""Share of the dense network's multiplications: what decides how fast sparse kernels can be."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from fractions import Fraction
from functools import partial

from torch import nn

from sparsemend.allocation import Allocation, CostQuota, added_up
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import cut
from sparsemend.graphs import multiplications, shrink, trace
from sparsemend.layers import Layer, LayerSet, layer_weight, weight_matrix
from sparsemend.targets.channels import ChannelSpending
from sparsemend.targets.kind import Kind, Subject


def quota(subject: Subject, share: float) -> CostQuota:
    """Every weight costs as many multiplications as there are positions that it is used at."""
    for layer in subject.layers:
        if not subject.multiplications[layer.name]:
            raise SparsemendError(
                f"layer {layer.name!r} does not multiply on the first batch, so that it is not "
                "known what its weights cost",
                allowed="inputs that reach every layer",
                fix="choose a sparsity, or leave the layer out with exclude",
            )
    return quota_of(subject.layers, subject.multiplications, Fraction(str(share)))


def quota_of(layers: LayerSet, dense: Mapping[str, int], share: Fraction) -> CostQuota:
    """A share of the multiplications of the dense network.

    Parameters
    ----------
    layers
        Those that are pruned.
    dense
        Layer → multiplications of the dense network, also of layers that are not pruned.
    share
        The limit.
    """
    total = sum(dense.values())
    prices = tuple(Fraction(dense[layer.name], layer.size * total) for layer in layers)
    spend = added_up([partial(operator.mul, price) for price in prices])
    fixed = Fraction(sum(dense.get(layer.name, 0) for layer in layers.others), total)
    if any(layer.pattern.takes_channels for layer in layers):
        spend, fixed = ChannelSpending(layers, dense), Fraction(0)
    return CostQuota(
        sizes=tuple(layer.size for layer in layers),
        spend=spend,
        prices=prices,
        limit=share,
        fixed=fixed,
        structures=tuple(layer.structure for layer in layers),
    )


def kept_share(subject: Subject, allocation: Allocation, network: nn.Module) -> float:
    """Share of the multiplications that a finished network does, where zeros are skipped.

    Weights that read channels which are gone, or make some that nothing reads, do not multiply:
    they are left out as in exports. Where the network cannot be written as a graph, it is what the
    kept counts say.

    Parameters
    ----------
    subject
        The dense network.
    allocation
        What was kept.
    network
        The finished network.
    """
    layers, dense = subject.layers, subject.multiplications
    foreseen = float(quota_of(layers, dense, Fraction(1)).cost(tuple(allocation.values())))
    everything = (*layers, *layers.others)
    if not any(_has_dead_channels(network, layer) for layer in everything):
        return foreseen
    try:
        graph = trace(network, cut(subject.batch, 0, 1)).graph
        written, left = multiplications(graph), multiplications(shrink(graph), nonzero=True)
    except Exception:  # a number that is only reported fails nothing
        return foreseen
    kept = Fraction(0)
    for layer in everything:
        if written.get(layer.name) == dense[layer.name]:
            kept += left.get(layer.name, 0)
        else:  # an operation that graphs hand on to PyTorch
            density = Fraction(allocation.get(layer.name, layer.size), layer.size)
            kept += dense[layer.name] * density
    return float(kept / sum(dense.values()))


def _has_dead_channels(network: nn.Module, layer: Layer) -> bool:
    """Whether a channel of its output or its input has no weight."""
    weights = weight_matrix(layer_weight(network, layer) != 0, layer)
    channels = weights.reshape(layer.matrix_shape)
    return not bool(weights.any(dim=2).all() and channels.any(dim=3).any(dim=1).all())


def read(value: object) -> float | None:
    """A share in (0, 1], as a number or a text."""
    if isinstance(value, bool):
        return None
    try:
        share = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return share if 0 < share <= 1 else None


FLOPS = Kind(
    "flops",
    "a share of the dense network's multiplications, in (0, 1]; 10 % is 0.1",
    read,
    "{:.6g}".format,
    "of the multiplications",
    "multiplications kept, in percent",
    0.01,
    quota,
    multiplies=True,
)
