"""What all layers together may keep: an exact number of weights, or whatever fits into a cost.

A rule divides a number of weights. Of a cost the number is solved for: the largest at which what
the rule keeps is not too expensive. So each rule stays what it is, and a rule that prefers cheap
weights reads their prices. Counts that the patterns of layers do not allow become such ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TypeVar

from sparsemend.allocation.budget import kept_total, require_feasible, round_to_budget
from sparsemend.allocation.whole_units import hold_to_patterns
from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer
from sparsemend.patterns import Structure

# Number of weights to keep in all → kept count of each layer.
Divide = Callable[[int], Sequence[int]]
Number = Fraction | float
Value = TypeVar("Value")
# Share of a cost that is not worth the time to spend it: ranking large networks takes seconds.
_CLOSE = 1e-4


@dataclass(frozen=True)
class WeightQuota:
    """An exact number of weights, or what the layers' patterns allow that is nearest.

    Attributes
    ----------
    sizes
        Number of weights of each layer.
    keep
        How many are kept in all.
    sparsity
        What was asked for, a fraction in [0, 1).
    structures
        The pattern of each layer; empty where any weights can be kept.
    """

    sizes: tuple[int, ...]
    keep: int
    sparsity: float
    structures: tuple[Structure, ...] = ()

    @classmethod
    def of(cls, layers: Sequence[Layer], sparsity: float) -> WeightQuota:
        """Of a sparsity: round((1 − S) · N) weights.

        Raises
        ------
        SparsemendError
            If it is out of range, leaves fewer weights than layers have to keep, or is not that
            of the pattern.
        """
        sizes = tuple(layer.size for layer in layers)
        structures = tuple(layer.structure for layer in layers)
        least = [structure.least for structure in structures]
        keep = kept_total(sparsity, sum(sizes))
        pattern = layers[0].pattern
        if pattern.density is not None:
            pattern.sparsity(sparsity)
            keep = sum(least)  # two thirds are no decimal
        require_feasible(sizes, keep, least)
        return cls(sizes, keep, float(sparsity), structures)

    @classmethod
    def exactly(cls, sizes: Sequence[int], keep: int) -> WeightQuota:
        """So many weights, any of them."""
        return cls(tuple(sizes), keep, 1 - keep / max(sum(sizes), 1))

    @property
    def prices(self) -> tuple[Number, ...]:
        """Empty: weights of all layers cost the same."""
        return ()

    def fits(self, places: Sequence[int]) -> bool:
        """Whether these layers alone can keep as much."""
        return self.keep <= sum(_of(self.sizes, places))

    def of_some(self, places: Sequence[int]) -> WeightQuota:
        """The same for these layers, where all others keep nothing."""
        return replace(self, sizes=_of(self.sizes, places), structures=_of(self.structures, places))

    def fill(self, divide: Divide) -> tuple[int, ...]:
        """The counts that a rule divides it into."""
        return hold_to_patterns(divide(self.keep), self.sizes, self.structures, self.keep)


@dataclass(frozen=True)
class CostQuota:
    """As many weights as a cost allows.

    Attributes
    ----------
    sizes
        Number of weights of each layer.
    spend
        Kept count of each layer → what all of them cost, which grows with each.
    prices
        About what one weight of each layer costs, for rules that prefer cheap ones; positive.
    limit
        What all may cost.
    fixed
        What is spent whatever is kept.
    name, text
        Of the argument that set it; a cost in words. For errors.
    measure
        Kept counts → what a network that is pruned so really costs, where ``spend`` is a model of
        it; None where it is exact.
    factor
        By which the model was found to be off.
    structures
        The pattern of each layer; empty where any weights can be kept.
    """

    sizes: tuple[int, ...]
    spend: Callable[[Sequence[int]], Number]
    prices: tuple[Number, ...]
    limit: Number
    fixed: Number = 0
    name: str = "the budget"
    text: Callable[[float], str] = "{:g}".format
    measure: Callable[[tuple[int, ...]], float] | None = None
    factor: Number = 1
    structures: tuple[Structure, ...] = ()

    def cost(self, counts: Sequence[int]) -> Number:
        """What these kept counts cost."""
        return self.factor * (self.fixed + self.spend(counts))

    def fill(self, divide: Divide, most: int | None = None) -> tuple[int, ...]:
        """The counts of the largest number of weights that is not too expensive, or nearly so.

        Parameters
        ----------
        divide
            A rule: number of weights in all → counts. It may refuse small numbers.
        most
            The largest number that it can divide; default all weights.

        Raises
        ------
        SparsemendError
            If even the fewest weights cost too much: says what they cost.
        """

        def held(keep: int) -> tuple[int, ...]:
            return hold_to_patterns(divide(keep), self.sizes, self.structures, keep)

        high = sum(self.sizes) if most is None else most
        dearest = held(high)
        # What depends on the counts, and what of it is aimed at.
        fixed = float(self.factor * self.fixed)
        aim = float(self.limit) * (1 - _CLOSE / 2) - fixed
        if self.cost(dearest) <= self.limit:
            return dearest
        low, found, refused = len(self.sizes) - 1, None, False
        seen = [(high, float(self.cost(dearest)) - fixed)]
        while high - low > 1:
            middle = (low + high) // 2
            if not refused:
                middle = min(max(_guess(seen, aim, middle), low + 1), high - 1)
            try:
                counts, refused = held(middle), False
            except SparsemendError:  # fewer than the rule must keep
                low, refused = middle, True
                continue
            cost = self.cost(counts)
            seen.append((middle, float(cost) - fixed))
            if cost > self.limit:
                high, dearest = middle, counts
                continue
            low, found = middle, counts
            if cost >= self.limit * (1 - _CLOSE):
                break
        if found is None:
            raise self._unreachable(dearest)
        return found

    def fits(self, places: Sequence[int]) -> bool:  # noqa: ARG002
        """True: of a cost, less can be spent."""
        return True

    def of_some(self, places: Sequence[int]) -> CostQuota:
        """The same for these layers, where all others keep nothing; only the whole is measured."""

        def spend(counts: Sequence[int]) -> Number:
            all_counts = [0] * len(self.sizes)
            for place, kept in zip(places, counts, strict=True):
                all_counts[place] = kept
            return self.spend(all_counts)

        return replace(
            self,
            sizes=_of(self.sizes, places),
            spend=spend,
            prices=_of(self.prices, places),
            measure=None,
            structures=_of(self.structures, places),
        )

    @cached_property
    def sparsity(self) -> float:
        """About what it comes to: of the same density in all layers."""
        counts = self.fill(lambda keep: round_to_budget([1.0] * len(self.sizes), self.sizes, keep))
        total = sum(self.sizes)
        return (total - sum(counts)) / total

    def corrected(self, counts: tuple[int, ...], found: float | None = None) -> CostQuota:
        """The same with costs that are right at these counts: as found, else as measured."""
        if found is None:
            if self.measure is None:
                return self
            found = self.measure(counts)
        return replace(self, factor=self.factor * (found / float(self.cost(counts))))

    def check(self) -> None:
        """Refuse a limit that is below the cost of the fewest weights.

        Raises
        ------
        SparsemendError
            Says what these cost.
        """
        fewest = [structure.least for structure in self.structures] or [1] * len(self.sizes)
        if self.cost(fewest) > self.limit:
            raise self._unreachable(fewest)

    def _unreachable(self, fewest: Sequence[int]) -> SparsemendError:
        # Rounded up, so that what is printed can be reached.
        least = float(self.cost(fewest)) * (1 + 1e-5)
        return SparsemendError(
            f"{self.name} cannot be reached with this rule and these layers",
            self.text(float(self.limit)),
            f"at least {self.text(least)}",
            "ask for more, or leave fewer layers dense",
        )


def added_up(costs: Sequence[Callable[[int], Number]]) -> Callable[[Sequence[int]], Number]:
    """What layers cost together of which each has a cost of its own: kept count → cost."""
    return lambda counts: sum(cost(kept) for cost, kept in zip(costs, counts, strict=True))


Quota = WeightQuota | CostQuota


def as_quota(budget: float | Quota, layers: Sequence[Layer]) -> Quota:
    """Of a sparsity, or as it is, of these layers."""
    sizes = tuple(layer.size for layer in layers)
    if not isinstance(budget, Quota):
        return WeightQuota.of(layers, budget)
    if budget.sizes != sizes:
        raise SparsemendError(
            "the budget is of layers of other sizes", list(budget.sizes), str(list(sizes))
        )
    return budget


def _of(values: Sequence[Value], places: Sequence[int]) -> tuple[Value, ...]:
    """Those at these places; none where there are none at all."""
    return tuple(values[place] for place in places) if values else ()


def _guess(seen: Sequence[tuple[int, float]], aim: float, middle: int) -> int:
    """How many weights cost what is aimed at, by what some were seen to cost.

    Now and then it is the middle, whatever was seen.
    """
    if aim <= 0 or len(seen) % 5 == 0:
        return middle
    number, cost = seen[-1]
    if len(seen) == 1:
        return round(number * aim / cost)
    # Costs are about a power of the number: a line through the last two logarithms.
    before, other = seen[-2]
    if min(cost, other) <= 0 or cost == other or number == before:
        return middle
    power = math.log(number / before) / math.log(cost / other)
    return round(number * math.pow(aim / cost, min(max(power, 0.0), 4.0)))
