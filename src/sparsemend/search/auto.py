"""Rule ``auto``: search for the allocation that leaves the repaired network closest to the dense.

Every plain rule gets the real repair. Then a local search starts from the best: it moves
budget towards the other rules, towards the least damage weighted by measured sensitivities, and
between groups of layers and single layers. Moves are tried with a cheap repair; what they
reach is confirmed with the real one, and only that counts. The sequence of trials does not
depend on the budget, so a larger budget never ends with a larger KL.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

from sparsemend._progress import progress_bar
from sparsemend.allocation import Allocation
from sparsemend.layers import LayerSet
from sparsemend.search._budget import Budget, Meter
from sparsemend.search._result import AllocationSearch, Trial
from sparsemend.search.directions import Array, counts_of, log_densities, moves
from sparsemend.search.objective import Objective

# Improvements with the cheap repair before the real one confirms them.
_CONFIRM_AFTER = 3
# First factors of the steps, and what becomes of them.
_STEPS = {"anchor": 0.3, "group": 0.35, "layer": 0.5}
_GROW, _SHRINK, _SMALLEST = 1.5, 0.5, 0.08

Anchors = Callable[[], Mapping[str, Sequence[int]]]


def search_allocation(
    layers: LayerSet,
    plain: Mapping[str, Allocation],
    objective: Objective,
    budget: Budget,
    *,
    anchors: Anchors = dict,
    anchors_cost: float = 0.0,
    progress: bool | None = None,
) -> AllocationSearch:
    """Find the allocation with the lowest KL on the inputs that no repair sees.

    Parameters
    ----------
    layers
        The layers, in execution order.
    plain
        Rule → its allocation, all of one budget; tried first, in this order.
    objective
        What is minimised.
    budget
        When to stop. The first rule is tried whatever it is.
    anchors
        Further allocations, name → counts, worth trying after the plain rules; called then.
    anchors_cost
        What calling it costs, in repairs.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    AllocationSearch
        The best allocation and all that was tried. Interrupting the search ends it with the
        best so far.
    """
    return _Search(layers, plain, objective, Meter(budget), progress).run(anchors, anchors_cost)


class _Search:
    def __init__(
        self,
        layers: LayerSet,
        plain: Mapping[str, Allocation],
        objective: Objective,
        meter: Meter,
        progress: bool | None,
    ) -> None:
        self._layers, self._plain, self._objective = layers, plain, objective
        self._meter, self._progress = meter, progress
        first = next(iter(plain.values()))
        self._sizes, self._keep = tuple(first.sizes.values()), first.kept
        self._trials: list[Trial] = []
        self._proxies: dict[tuple[int, ...], float] = {}
        self._start = time.monotonic()

    def run(self, anchors: Anchors, anchors_cost: float) -> AllocationSearch:
        finished = "budget spent"
        with progress_bar("search", self._meter.total, self._progress) as self._advance:
            try:
                if self._rules() and self._further(anchors, anchors_cost) and self._climb():
                    finished = "no move helps any more"
            except KeyboardInterrupt:
                if not self._trials:
                    raise
                finished = "interrupted"
        best = self._best
        names = [layer.name for layer in self._layers]
        counts = dict(zip(names, best.counts, strict=True))
        sizes = dict(zip(names, self._sizes, strict=True))
        return AllocationSearch(
            allocation=Allocation(counts, sizes, "auto"),
            winner=best.name,
            kl=best.kl,
            trials=tuple(self._trials),
            plain=tuple(name for name in self._plain if name in {t.name for t in self._trials}),
            proxies=len(self._proxies),
            repairs=self._meter.spent,
            seconds=time.monotonic() - self._start,
            finished=finished,
            reference=dict(self._plain["erk"].densities) if "erk" in self._plain else {},
        )

    @property
    def _best(self) -> Trial:
        """The earliest of the closest."""
        return min(self._trials, key=lambda trial: trial.kl)

    def _rules(self) -> bool:
        """Try the plain rules; False when the budget is spent."""
        return all(self._exact(name, tuple(a.values())) for name, a in self._plain.items())

    def _further(self, anchors: Anchors, cost: float) -> bool:
        self._anchors = {t.name: t.counts for t in sorted(self._trials, key=lambda t: t.kl)}
        if not self._meter.affords(cost):
            return False
        self._meter.charge(cost)
        for name, counts in anchors().items():
            if not self._exact(name, tuple(counts)):
                return False
            self._anchors = {name: tuple(counts), **self._anchors}
        return True

    def _climb(self) -> bool:
        """Local search from the best; True when it has come to its end within the budget."""
        walk = _Walk(self._log(self._best.counts), self._best.name)
        value = self._proxy(walk.point)
        while value is not None and walk.alive:
            others = {n: self._log(c) for n, c in self._anchors.items()}
            counts = counts_of(walk.point, self._sizes, self._keep)
            for name, direction in moves(self._layers, walk.point, counts, others).items():
                value = self._line(walk, name, direction, value)
                if value is None:
                    return False
                if walk.unconfirmed >= _CONFIRM_AFTER:
                    value = self._confirm(walk, value)
                    if value is None:
                        return False
            if walk.unconfirmed:
                value = self._confirm(walk, value)
        return value is not None

    def _line(self, walk: _Walk, name: str, direction: Array, value: float) -> float | None:
        """Try a step forth and back; the new value, or None when the budget is spent."""
        step = walk.step(name)
        for sign in walk.signs(name):
            point = self._log(
                counts_of(walk.point + sign * step * direction, self._sizes, self._keep)
            )
            found = self._proxy(point)
            if found is None:
                return None
            if found < value:
                walk.accept(name, sign, point)
                return found
        walk.refuse(name)
        return value

    def _confirm(self, walk: _Walk, value: float) -> float | None:
        """Give what the walk has reached the real repair; where it is no better, go back."""
        before = self._best
        if not self._exact(walk.name, counts_of(walk.point, self._sizes, self._keep)):
            return None
        if self._best is not before:
            walk.confirm()
            return value
        walk.revert()
        return self._proxy(walk.point)

    def _exact(self, name: str, counts: tuple[int, ...]) -> bool:
        """Try an allocation with the real repair; False when the budget is spent."""
        same = next((t for t in self._trials if t.counts == counts), None)
        if same is None:
            if self._trials and not self._meter.affords(1):
                return False
            kl = self._objective.exact(self._named(counts))
            self._meter.charge(1)
        else:
            kl = same.kl
        self._trials.append(Trial(name, counts, kl, time.monotonic() - self._start))
        self._report()
        return True

    def _proxy(self, point: Array) -> float | None:
        counts = counts_of(point, self._sizes, self._keep)
        if counts not in self._proxies:
            if not self._meter.affords(self._objective.proxy_cost):
                return None
            self._proxies[counts] = self._objective.proxy(self._named(counts))
            self._meter.charge(self._objective.proxy_cost)
            self._report()
        return self._proxies[counts]

    def _named(self, counts: tuple[int, ...]) -> dict[str, int]:
        return {layer.name: n for layer, n in zip(self._layers, counts, strict=True)}

    def _log(self, counts: Sequence[int]) -> Array:
        return log_densities(counts, self._sizes)

    def _report(self) -> None:
        self._advance(f"search, KL {self._best.kl:.4f}", self._meter.done)


class _Walk:
    """Where the local search stands: a point, the last confirmed one, and a step per direction."""

    def __init__(self, point: Array, name: str) -> None:
        self.point, self._confirmed = point, point
        self._start, self._steps = name, dict[str, float]()
        self._signs: dict[str, float] = {}
        self._moves, self.unconfirmed = 0, 0

    @property
    def name(self) -> str:
        plural = "" if self._moves == 1 else "s"
        return f"{self._start} after {self._moves} move{plural}"

    @property
    def alive(self) -> bool:
        """Whether some direction is untried or may still help."""
        return not self._steps or max(self._steps.values()) > _SMALLEST

    def step(self, name: str) -> float:
        kind = "anchor" if name.startswith("towards ") else "layer"
        return self._steps.setdefault(name, _STEPS[kind])

    def signs(self, name: str) -> tuple[float, float]:
        """The side that helped last comes first."""
        sign = self._signs.get(name, 1.0)
        return sign, -sign

    def accept(self, name: str, sign: float, point: Array) -> None:
        self.point, self._signs[name] = point, sign
        self._steps[name] *= _GROW
        self._moves += 1
        self.unconfirmed += 1

    def refuse(self, name: str) -> None:
        self._steps[name] *= _SHRINK

    def confirm(self) -> None:
        self._confirmed, self.unconfirmed = self.point, 0

    def revert(self) -> None:
        """Back to the last confirmed point, with smaller steps."""
        self.point = self._confirmed
        self._moves -= self.unconfirmed
        self.unconfirmed = 0
        self._steps = {name: _SHRINK * step for name, step in self._steps.items()}
