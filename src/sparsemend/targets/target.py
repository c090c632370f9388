"""One target that a user set, read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

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

    def reached(self, network: nn.Module, batch: Batch, kept_multiplications: float) -> float:
        """What a finished network costs, which does this share of the multiplications."""
        if self.kind.measure is None:
            return kept_multiplications
        return self.kind.measure(network, batch)

    def missed(self, reached: float) -> bool:
        """Whether a network is to be made once more."""
        settles = self.kind.settles
        if self.kind.measure is None:  # more channels stay for their constants than was foreseen
            return reached > self.limit
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

    @property
    def written(self) -> str:
        """Kind and limit as stores keep them, to the last bit."""
        return f"{self.kind.name} {self.limit!r}"

    @classmethod
    def parse(cls, written: str) -> Self:
        """Inverse of :attr:`written`.

        Raises
        ------
        SparsemendError
            If there is no such kind of target.
        """
        name, _, limit = written.partition(" ")
        if name not in KINDS:
            raise SparsemendError("there is no such target", written, ", ".join(KINDS))
        return cls(KINDS[name], float(limit))

    def __str__(self) -> str:
        return f"{self.kind.argument} {self.kind.text(self.limit)}"


def _kind(argument: str) -> Kind:
    return next(kind for kind in KINDS.values() if kind.argument == argument)


def _read(argument: str, value: object) -> Target:
    """One target from what a user wrote."""
    kind = _kind(argument)
    limit = kind.read(value)
    if limit is None:
        raise SparsemendError(f"{argument} is not understood", value, kind.allowed)
    return Target(kind, limit)


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
    return None if name == "sparsity" else _read(name, value)


def read_targets(
    sparsities: object, said_by: str = "", **targets: float | str | Iterable[float | str] | None
) -> tuple[Target, ...]:
    """What is to be reached, one after the other: targets of one kind, ascending and distinct.

    Parameters
    ----------
    sparsities
        What was given in the place of targets; None for nothing.
    said_by, targets
        As of :func:`read_target`; one or several values.

    Returns
    -------
    tuple of Target
        Empty where no target was given.

    Raises
    ------
    SparsemendError
        If more than one kind of budget was given, a value is not understood, or something else
        says how many weights are kept.
    """
    given = {name: value for name, value in targets.items() if value is not None}
    if not given:
        return ()
    if said_by:
        raise SparsemendError(
            f"{said_by} says itself how many weights are kept",
            " and ".join(given),
            fix="leave out one of the two",
        )
    names = [*(["sparsities"] if sparsities is not None else []), *given]
    if len(names) > 1:
        raise SparsemendError(
            "budgets of several kinds do not go into one sweep",
            " and ".join(names),
            "one of these",
            "sweep each kind for itself; they may go into one store",
        )
    name, values = next(iter(given.items()))
    if isinstance(values, str) or not isinstance(values, Iterable):
        values = [values]
    found = {_read(name, value) for value in values}
    if not found:
        raise SparsemendError(f"{name} has no values", allowed="at least one")
    return tuple(sorted(found, key=lambda target: target.limit))
