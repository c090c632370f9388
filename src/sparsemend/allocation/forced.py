"""Forcing some layers to another rule's densities, to see what a rule's choice there is worth."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.budget import round_to_budget
from sparsemend.allocation.quota import CostQuota, Quota
from sparsemend.allocation.whole_units import hold_to_patterns
from sparsemend.errors import SparsemendError


@dataclass(frozen=True)
class ForcedRule:
    """A rule with some layers forced to another's densities, written ``base[pattern=source]``.

    Attributes
    ----------
    base
        Rule for all other layers.
    pattern
        Which layers are forced, as in :func:`sparsemend.layers.select_layers`.
    source
        Rule that the forced layers take their densities from.
    """

    base: str
    pattern: str
    source: str

    def __str__(self) -> str:
        return f"{self.base}[{self.pattern}={self.source}]"


def parse_forced(rule: str) -> ForcedRule | None:
    """Read ``"erk[projection=lamp]"`` and the like; None for a plain rule."""
    found = re.fullmatch(r"([^\[\]=]+)\[(.+)=([^\[\]=]+)\]", str(rule))
    return ForcedRule(*found.groups()) if found else None


def force_layers(
    base: Allocation,
    source: Allocation,
    forced: Collection[str],
    rule: str,
    quota: Quota | None = None,
) -> Allocation:
    """Give layers another allocation's counts and rescale the rest to the same budget.

    The layers that are not forced keep their proportions: their densities are multiplied by one
    factor, at most to 1 (water-filling), and rounded to the exact budget.

    Parameters
    ----------
    base, source
        Allocations of the same layers.
    forced
        Names of layers that take the counts of ``source``.
    rule
        Name for the result.
    quota
        The budget of both; default the number of weights that ``base`` keeps.

    Raises
    ------
    SparsemendError
        If the other layers are too few, or have too few weights, to make up for the forced ones.

    Examples
    --------
    >>> base = Allocation({"a": 9, "b": 20, "c": 10}, {"a": 10, "b": 100, "c": 100}, "erk")
    >>> source = Allocation({"a": 3, "b": 18, "c": 18}, {"a": 10, "b": 100, "c": 100}, "uniform")
    >>> dict(force_layers(base, source, ["a"], "erk[a=uniform]"))
    {'a': 3, 'b': 24, 'c': 12}
    """
    counts = {name: source[name] for name in base if name in forced}
    rest = [name for name in base if name not in forced]
    sizes = [base.sizes[name] for name in rest]
    densities = [Fraction(base[name], max(base.sizes[name], 1)) for name in rest]

    def divide(keep: int) -> list[int]:
        left = keep - sum(counts.values())
        if not len(rest) <= left <= sum(sizes):
            raise SparsemendError(
                f"with {len(counts)} layers forced, the other {len(rest)} cannot keep what is left",
                left,
                f"{len(rest)} to {sum(sizes)} weights",
                "force fewer layers, or choose another sparsity",
            )
        found = counts | dict(zip(rest, round_to_budget(densities, sizes, left), strict=True))
        return [found[name] for name in base]

    if isinstance(quota, CostQuota):
        filled = quota.fill(divide, most=sum(counts.values()) + sum(sizes))
    else:
        filled = tuple(divide(base.kept))
        if quota is not None:
            filled = hold_to_patterns(filled, quota.sizes, quota.structures, base.kept)
    return Allocation(dict(zip(base, filled, strict=True)), base.sizes, rule)
