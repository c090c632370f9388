"""Share of the dense network's multiplications: what decides how fast sparse kernels can be."""

from __future__ import annotations

import operator
from fractions import Fraction
from functools import partial

from sparsemend.allocation import CostQuota
from sparsemend.errors import SparsemendError
from sparsemend.layers import count_multiplications
from sparsemend.targets.kind import Kind, Subject


def quota(subject: Subject, share: float) -> CostQuota:
    """Every weight costs as many multiplications as there are positions that it is used at."""
    layers = subject.layers
    counted = count_multiplications(subject.model, (*layers, *layers.others), subject.batch)
    for layer in layers:
        if not counted[layer.name]:
            raise SparsemendError(
                f"layer {layer.name!r} does not multiply on the first batch, so that it is not "
                "known what its weights cost",
                allowed="inputs that reach every layer",
                fix="choose a sparsity, or leave the layer out with exclude",
            )
    total = sum(counted.values())
    prices = tuple(Fraction(counted[layer.name], layer.size * total) for layer in layers)
    return CostQuota(
        sizes=subject.sizes,
        costs=tuple(partial(operator.mul, price) for price in prices),
        prices=prices,
        limit=Fraction(str(share)),
        fixed=Fraction(sum(counted[layer.name] for layer in layers.others), total),
        structures=subject.structures,
    )


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
