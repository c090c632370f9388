"""Time of one input on the sparse runtime, on this machine and one thread."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Mapping
from functools import partial

from torch import nn

from sparsemend.allocation import CostQuota
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, cut
from sparsemend.execution.stopwatch import steady_time
from sparsemend.execution.threads import thread_count
from sparsemend.layers import count_multiplications
from sparsemend.runtime import instruction_sets, prepare
from sparsemend.targets.fitting import fitted, read_quantity, two_counts
from sparsemend.targets.kind import Kind, Subject

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
# Of the average time that a multiplication takes: a layer that seems to take less was badly timed.
_LEAST = 0.1


def quota(subject: Subject, limit: float) -> CostQuota:
    """Layers take time in proportion to what they keep, each at a rate that is measured."""
    if not instruction_sets():
        raise SparsemendError(
            "target_latency needs the kernels of the sparse runtime, which are not built here",
            fix="install a C compiler and run python -m sparsemend.runtime.build",
        )
    timed = {}
    for counts in two_counts(subject):
        timed[counts] = time_network(subject.pruned(counts), subject.batch)
    shapes = [partial(operator.mul, rate) for rate in _rates(subject, timed)]
    seconds = {counts: total for counts, (total, _) in timed.items()}
    return fitted(
        subject,
        limit,
        shapes,
        seconds,
        lambda counts: measure(subject.pruned(counts), subject.batch),
    )


def _rates(
    subject: Subject, timed: Mapping[tuple[int, ...], tuple[float, Mapping[str, float]]]
) -> list[float]:
    """Seconds of a kept weight in every layer."""
    (few, (_, fast)), (many, (_, slow)) = timed.items()
    counted = count_multiplications(subject.model, subject.layers, subject.batch)
    # Per weight of a layer, its multiplications; where one was not timed for itself, these decide.
    positions = [max(counted[layer.name], 1) / layer.size for layer in subject.layers]
    known, seconds, multiplied = {}, 0.0, 0.0
    for index, layer in enumerate(subject.layers):
        more = many[index] - few[index]
        if layer.name in fast and layer.name in slow and more > 0:
            known[index] = (slow[layer.name] - fast[layer.name]) / more
            seconds += known[index] * more
            multiplied += positions[index] * more
    average = seconds / multiplied if seconds > 0 else 1.0
    return [
        max(known.get(index, average * per_weight), _LEAST * average * per_weight)
        for index, per_weight in enumerate(positions)
    ]


def measure(network: nn.Module, batch: Batch) -> float:
    """Seconds of one input."""
    return time_network(network, batch)[0]


def time_network(network: nn.Module, batch: Batch) -> tuple[float, Mapping[str, float]]:
    """Seconds of one input, and of the layers that the kernels run, by name."""
    one = cut(batch, 0, 1)
    with warnings.catch_warnings(), thread_count(1):
        # What PyTorch runs for want of a kernel is for those who prepare the network to know.
        warnings.simplefilter("ignore", SparsemendWarning)
        prepared = prepare(network, one)
        seconds = steady_time(lambda: prepared(one))
    return seconds, {choice.layer: choice.seconds for choice in prepared.choices}


LATENCY = Kind(
    "latency",
    "a time with its unit, such as '2ms' or '500us'",
    partial(read_quantity, units=_UNITS),
    lambda seconds: f"{1e3 * seconds:.6g} ms",
    "an input on the sparse runtime",
    "milliseconds of one input on the sparse runtime",
    1e-3,
    quota,
    multiplies=True,
    measure=measure,
)
