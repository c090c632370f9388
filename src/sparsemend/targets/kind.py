"""What the rest of the library needs to know of one kind of target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from sparsemend.allocation import CostQuota, hold_to_patterns, round_to_budget
from sparsemend.execution.batches import Batch
from sparsemend.execution.copies import copied
from sparsemend.layers import LayerSet, count_multiplications
from sparsemend.masks import apply_masks, choose_masks
from sparsemend.patterns import Structure


@dataclass(frozen=True, eq=False)
class Subject:
    """What is to be pruned.

    Attributes
    ----------
    model
        The dense network; unchanged.
    layers
        Its layers that are pruned, in execution order.
    batch
        Inputs of it.
    """

    model: nn.Module
    layers: LayerSet
    batch: Batch

    @cached_property
    def multiplications(self) -> dict[str, int]:
        """Layer → multiplications for one input, also of layers that are not pruned."""
        return count_multiplications(self.model, (*self.layers, *self.layers.others), self.batch)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of weights of each layer."""
        return tuple(layer.size for layer in self.layers)

    @property
    def structures(self) -> tuple[Structure, ...]:
        """The pattern of each layer."""
        return tuple(layer.structure for layer in self.layers)

    def uniform(self, density: float) -> tuple[int, ...]:
        """Counts of about the same density in all layers."""
        keep = max(sum(s.least for s in self.structures), round(density * sum(self.sizes)))
        counts = round_to_budget([1.0] * len(self.sizes), self.sizes, keep)
        return hold_to_patterns(counts, self.sizes, self.structures, keep)

    def pruned(self, counts: Sequence[int]) -> nn.Module:
        """A copy with the largest weights of every layer, which stands for a repaired one."""
        named = dict(zip(self.layers.names, counts, strict=True))
        network = copied(self.model)
        masks = choose_masks(self.model, named, layers=self.layers)
        apply_masks(network, masks, self.layers)
        return network


@dataclass(frozen=True)
class Kind:
    """One kind of target.

    Attributes
    ----------
    name
        As users write it behind ``target_``.
    allowed
        What may be asked for, for the text of errors.
    read
        What a user wrote → the limit, a positive number in a unit of the kind's own; None for
        what is no such thing.
    text, noun
        A limit or a cost as a number, and of what it is.
    axis, unit
        Title of an axis of such costs, and what one step of it is.
    quota
        (network, limit) → what its layers may keep. The costs are in the same unit.
    measure
        (finished network, inputs) → what it costs; None where that is the share of the
        multiplications, which is counted for every network.
    multiplies
        Whether multiplications decide it, so that rules are compared at the same number of them;
        else the number of weights does.
    settles
        By how much of the limit a finished network may miss it: beyond, it is made once more with
        what was learned from it. None where measuring again would give something else.
    """

    name: str
    allowed: str
    read: Callable[[object], float | None]
    text: Callable[[float], str]
    noun: str
    axis: str
    unit: float
    quota: Callable[[Subject, float], CostQuota]
    multiplies: bool
    measure: Callable[[nn.Module, Batch], float] | None = None
    settles: float | None = None

    @property
    def argument(self) -> str:
        """In Python."""
        return f"target_{self.name}"
