"""What a search can be tried on without a network: layers, rules and a function of counts."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

import numpy as np
from tests.allocation.networks import make_layers, random_weights

from sparsemend.allocation import Allocation, allocate_layers, round_to_budget
from sparsemend.layers import Graph, LayerSet
from sparsemend.search import AllocationSearch

Counts = tuple[int, ...]
Function = Callable[[Counts], float]
Slopes = Callable[[Counts], np.ndarray]
SHAPES = ((8, 3, 3, 3), (8, 8, 3, 3), (16, 8, 3, 3), (16, 16, 3, 3), (24, 16, 3, 3), (10, 24))
RULES = ("global", "erk", "lamp", "uniform+", "uniform")


def layer_set(shapes: tuple[tuple[int, ...], ...] = SHAPES) -> LayerSet:
    return LayerSet(make_layers(shapes), Graph(), {})


def plain_rules(
    layers: LayerSet, sparsity: float = 0.8, rules: tuple[str, ...] = RULES
) -> dict[str, Allocation]:
    weights = random_weights(layers)
    return {rule: allocate_layers(layers, weights, sparsity, rule) for rule in rules}


class Fake:
    """An objective that is a function of the counts; notes what it is asked, and at what cost.

    It has slopes where ``slopes`` gives them, and a longer training where ``final`` does.
    """

    proxy_cost = 0.125
    slope_cost = 1.0

    def __init__(
        self,
        exact: Function,
        proxy: Function | None = None,
        slopes: Slopes | None = None,
        final: Function | None = None,
        direction: Function | None = None,
    ) -> None:
        self._exact, self._proxy, self._slopes = exact, proxy or exact, slopes
        self._final, self.final_cost = final or exact, 2.0 if final else 0.0
        self._direction, self.seconds = direction or exact, 0.0
        self.asked: list[tuple[str, Counts]] = []

    def exact(self, counts: Mapping[str, int]) -> float:
        self.asked.append(("exact", tuple(counts.values())))
        return self._exact(tuple(counts.values()))

    def proxy(self, counts: Mapping[str, int]) -> float:
        self.asked.append(("proxy", tuple(counts.values())))
        return self._proxy(tuple(counts.values()))

    def direction(self, counts: Mapping[str, int]) -> float:
        assert self.asked[-1] == ("exact", tuple(counts.values()))  # where it costs nothing
        return self._direction(tuple(counts.values()))

    def final(self, counts: Mapping[str, int]) -> float:
        self.asked.append(("final", tuple(counts.values())))
        return self._final(tuple(counts.values()))

    def training_seconds(self) -> float:
        return self.seconds

    def slopes(self, counts: Mapping[str, int]) -> np.ndarray | None:
        if self._slopes is None:
            return None
        self.asked.append(("slopes", tuple(counts.values())))
        return self._slopes(tuple(counts.values()))

    @property
    def cost(self) -> float:
        costs = {
            "exact": 1.0,
            "proxy": self.proxy_cost,
            "slopes": self.slope_cost,
            "final": self.final_cost,
        }
        return sum(costs[kind] for kind, _ in self.asked)


def bowl(
    layers: LayerSet, keep: int, seed: int = 0, weight: float = 1.0
) -> tuple[Function, Counts]:
    """A smooth function of densities, 0 at known counts that are far from all rules."""
    rng = np.random.default_rng(seed)
    sizes = [layer.size for layer in layers]
    best = round_to_budget(np.exp(rng.normal(0, 1, len(sizes))).tolist(), sizes, keep)
    curvature = rng.uniform(0.3, 3, len(sizes))

    def value(counts: Counts) -> float:
        distance = np.log(np.asarray(counts) / np.asarray(best))
        return float(weight * (curvature * distance**2).sum())

    return value, best


def slopes_of(function: Function) -> Slopes:
    """Its derivatives by log densities, measured."""

    def measured(counts: Counts) -> np.ndarray:
        ends = [
            [function(tuple(np.asarray(counts) * np.exp(sign * row))) for row in steps]
            for sign in (1, -1)
        ]
        return (np.array(ends[0]) - np.array(ends[1])) / 2e-4

    steps = 1e-4 * np.eye(len(SHAPES))
    return measured


def rough(seed: int) -> Function:
    """A function without any order in it."""
    return lambda counts: random.Random(hash((seed, *counts))).random()


def outline(search: AllocationSearch) -> list[tuple[str, Counts, float]]:
    """The trials without the time they took."""
    return [(trial.name, trial.counts, trial.kl) for trial in search.trials]


def check_budget(search: AllocationSearch, layers: LayerSet) -> None:
    keep = search.allocation.kept
    for trial in search.trials:
        assert sum(trial.counts) == keep
        assert all(1 <= n <= layer.size for n, layer in zip(trial.counts, layers, strict=True))
    assert tuple(search.allocation.values()) in {trial.counts for trial in search.trials}
    assert search.kl == min(trial.kl for trial in search.trials if not math.isnan(trial.kl))
