"""An allocation in which some layers keep nothing, and the others all that there is."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.divide import allocate_layers
from sparsemend.allocation.problem import Array, DamageCurves
from sparsemend.allocation.quota import Quota
from sparsemend.layers.layer import Layer


def allocate_without(
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    quota: Quota,
    rule: str,
    idle: Collection[str],
    *,
    diagnosis: DamageCurves | None = None,
) -> Allocation:
    """Divide a budget over the layers that are not to be idle.

    Parameters
    ----------
    layers, weights, rule, diagnosis
        As of :func:`.allocate_layers`; all layers, in order.
    quota
        What all of them may keep.
    idle
        Names of those that keep nothing.

    Raises
    ------
    SparsemendError
        If the others cannot keep so much, or so little.
    """
    places = [i for i, layer in enumerate(layers) if layer.name not in idle]
    rest = [replace(layers[i], order=order) for order, i in enumerate(places)]
    curves = None if diagnosis is None else _Curves.of(diagnosis, {x.name for x in rest})
    some = quota if not idle else quota.of_some(places)
    found = allocate_layers(rest, weights, some, rule, diagnosis=curves)
    counts = {layer.name: found.get(layer.name, 0) for layer in layers}
    return Allocation(counts, {layer.name: layer.size for layer in layers}, rule)


@dataclass(frozen=True)
class _Curves:
    """The curves of some of the layers of a diagnosis."""

    layers: tuple[str, ...]
    densities: Array
    raw: Array
    residual: Array
    rr: Array
    sensitivities: Array | None

    @classmethod
    def of(cls, diagnosis: DamageCurves, names: Collection[str]) -> DamageCurves:
        rows = [i for i, name in enumerate(diagnosis.layers) if name in names]
        raw, residual, rr = (
            np.asarray(values)[rows] for values in (diagnosis.raw, diagnosis.residual, diagnosis.rr)
        )
        kept = tuple(diagnosis.layers[i] for i in rows)
        heard = diagnosis.sensitivities
        some = None if heard is None else np.asarray(heard)[rows]
        return cls(kept, diagnosis.densities, raw, residual, rr, some)
