"""What methods are compared on: a network, its inputs, and how good it is after pruning."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sparsemend.execution.batches import Batch


@dataclass(frozen=True)
class Figure:
    """A figure of the table.

    Attributes
    ----------
    title
        Of its column.
    text
        How a value is written.
    """

    title: str
    text: Callable[[float], str]


@dataclass(frozen=True)
class Problem:
    """One network and its inputs.

    Attributes
    ----------
    dense
        The network.
    inputs, heldout
        Batches to calibrate with, and others.
    rule
        The allocation that all methods get.
    figures
        Name of what is measured → its column.
    measure
        Network → values by name.
    methods
        Those that are compared unless others are asked for.
    exclude
        Layers that stay dense, as of :func:`sparsemend.discover`.
    best
        Where there is BatchNorm: which figure says the better ending, the larger the better.
    judge
        How closeness to the dense network is measured where our method has to.
    pattern
        Which weights can be kept.
    own_rule, own_repair
        The allocation that our method gets, where it is another one; its repair.
    own_distill
        Steps of its training, where it trains; None for its own number.
    judging
        Further batches, neither of ``inputs`` nor of what is measured on, for repairs of our method
        that choose by closeness; without any they set some of ``inputs`` aside.
    """

    dense: nn.Module
    inputs: Sequence[Batch]
    heldout: Sequence[Batch]
    rule: str
    figures: Mapping[str, Figure]
    measure: Callable[[nn.Module], dict[str, float]]
    methods: Sequence[str]
    exclude: Sequence[str] = ()
    best: str = ""
    judge: str = "auto"
    pattern: str = "free"
    own_rule: str | None = None
    own_repair: str = "reconstruct"
    own_distill: float | None = None
    judging: Sequence[Batch] = ()
