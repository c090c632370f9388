"""One target that a user set, read and checked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from sparsemend.allocation import CostQuota
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet
from sparsemend.targets.kind import Kind, Subject
from sparsemend.targets.registry import KINDS


@dataclass(frozen=True)
class Target:
    """The most that a sparse network may cost.

    Attributes
    ----------
    kind
        Of cost.
    limit
        In the unit of the kind.
    """

    kind: Kind
    limit: float

    def quota(self, model: nn.Module, layers: LayerSet, batch: Batch) -> CostQuota:
        """What the layers of a network may keep.

        Raises
        ------
        SparsemendError
            If it is not known what the network costs, or one weight in each layer costs more.
        """
        quota = self.kind.quota(Subject(model, layers, batch), self.limit)
        quota = replace(quota, name=self.kind.argument, text=self.kind.text)
        quota.check()
        return quota

    def reached(self, subject: Subject, counts: tuple[int, ...], network: nn.Module) -> float:
        """What a finished network costs that keeps so many weights of each layer."""
        if self.kind.measure is None:
            return float(self.kind.quota(subject, self.limit).cost(counts))
        return self.kind.measure(network, subject.batch)

    def missed(self, reached: float) -> bool:
        """Whether a network is to be made once more."""
        settles = self.kind.settles
        return settles is not None and abs(reached / self.limit - 1) > settles

    def to_dict(self, reached: float | None) -> dict[str, Any]:
        """Plain data for JSON; limits are shares, seconds or bytes."""
        return {
            "kind": self.kind.name,
            "limit": self.limit,
            "reached": reached,
            "text": self.told(reached),
        }

    def told(self, reached: float | None) -> str:
        """What was asked for and what was reached, in words."""
        found = "" if reached is None else f"; reached {self.kind.text(reached)}"
        return f"at most {self.kind.text(self.limit)} {self.kind.noun}{found}"

    def __str__(self) -> str:
        return f"{self.kind.argument} {self.kind.text(self.limit)}"


def read_target(
    sparsity: float | None, said_by: str = "", **targets: float | str | None
) -> Target | None:
    """What is to be reached: a target, or None where it is the sparsity.

    Parameters
    ----------
    sparsity
        As of a recipe; None where none was given.
    said_by
        What says itself how many weights are kept, in words, so that nothing else has to; empty for
        nothing.
    targets
        Argument, such as ``target_flops`` → what was given for it; None for nothing.

    Raises
    ------
    SparsemendError
        If not exactly one of all was given, or it is not understood; if something else says
        how many weights are kept, and a target was given.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    if said_by:
        if given:
            raise SparsemendError(
                f"{said_by} says itself how many weights are kept",
                " and ".join(given),
                fix="leave out one of the two",
            )
        return None
    if sparsity is not None:
        given = {"sparsity": sparsity, **given}
    if len(given) != 1:
        names = ["sparsity", *(kind.argument for kind in KINDS.values())]
        raise SparsemendError(
            "the budget is not said once",
            " and ".join(given) or "nothing",
            f"exactly one of {', '.join(names)}",
            "leave one out" if given else f"say {names[0]}, or another of them",
        )
    name, value = next(iter(given.items()))
    if name == "sparsity":
        return None
    kind = next(kind for kind in KINDS.values() if kind.argument == name)
    limit = kind.read(value)
    if limit is None:
        raise SparsemendError(f"{name} is not understood", value, kind.allowed)
    return Target(kind, limit)
