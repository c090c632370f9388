"""Rule ``auto``: search for the allocation that leaves the repaired network closest to the dense.

Every plain rule gets the real repair, then mixtures of the best ones, then rules that have to
measure first. From the best of all these, steps change all layers together down the slope of the
loss; then a local search moves budget between groups of layers and single layers. Moves are tried
with a cheap repair; what they reach is confirmed with the real one, and only that counts. The
sequence of trials does not depend on the budget, so a larger budget never ends with a larger loss.

Where the repair trains, trials do not, and two of them are trained in the end, the closer of which
is kept: what is closest right after a reconstruction need not be closest then.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sparsemend.allocation import Allocation, Quota, WeightQuota
from sparsemend.execution.interrupts import note_interrupt
from sparsemend.layers import LayerSet
from sparsemend.progress import Advance, progress_bar
from sparsemend.recipe import AUTO, Budget
from sparsemend.search.climb import Climb
from sparsemend.search.directions import Array, Move, counts_of, log_densities, moves
from sparsemend.search.meter import Meter
from sparsemend.search.mixtures import Mixture, describe, first_mixtures, halfway, mix
from sparsemend.search.objective import Objective
from sparsemend.search.result import INTERRUPTED, AllocationSearch, Trial
from sparsemend.search.slopes import downhill

# Improvements with the cheap repair before the real one confirms them.
_CONFIRM_AFTER = 3

# How many of the trials are trained, and the most of a time that these may take up.
_FINALISTS, _FINAL_SHARE = 2, 2 / 3

# First largest change of a log density in a step downhill, what becomes of it after a step that
# did not help or did, and the smallest that is worth a repair.
_RADIUS, _SHRINK, _GROW, _SMALLEST_RADIUS = 0.4, 0.5, 1.2, 0.05


@dataclass(frozen=True)
class Further:
    """Allocations that are worth trying, but have to be measured.

    Attributes
    ----------
    found
        Name → counts; called after rules and mixtures.
    cost
        What calling it costs, in repairs.
    """

    found: Callable[[], Mapping[str, Sequence[int]]]
    cost: float = 0.0


def search_allocation(
    layers: LayerSet,
    plain: Mapping[str, Allocation],
    objective: Objective,
    budget: Budget,
    *,
    further: Sequence[Further] = (),
    label: str = "KL",
    quota: Quota | None = None,
) -> AllocationSearch:
    """Find the allocation with the lowest loss on the inputs that no repair sees.

    Parameters
    ----------
    layers
        The layers, in execution order.
    plain
        Rule → its allocation, all of one quota; tried first, in this order.
    objective
        What is minimised.
    budget
        When to stop. The first rule is tried whatever it is.
    further
        What is worth trying after rules and mixtures, one after the other.
    label
        What the loss is called in texts.
    quota
        What all allocations have to use up; default the number of weights of the plain ones.

    Returns
    -------
    AllocationSearch
        The best allocation and all that was tried. Interrupting the search ends it with the
        best so far.
    """
    if quota is None:
        first = next(iter(plain.values()))
        quota = WeightQuota.exactly(tuple(first.sizes.values()), first.kept)
    each = _final_cost(objective, budget)
    kept = _FINALISTS * each[0], _FINALISTS * each[1]
    if 1 + len(plain) + kept[0] > budget.repairs or kept[1] > _FINAL_SHARE * budget.seconds:
        kept = 0.0, 0.0  # nothing would be left to choose from
    search = _Search(layers, plain, objective, Meter(budget, *kept), label, quota, each)
    return search.run(further)


def _final_cost(objective: Objective, budget: Budget) -> tuple[float, float]:
    """Repairs, and seconds beside them, that training a trial takes; 0 where it does not train.

    A number of repairs is spent alike on every machine, a time by what steps take on this one.
    """
    if objective.final_cost and math.isfinite(budget.seconds):
        return 1.0, objective.training_seconds()
    return objective.final_cost, 0.0


class _Search:
    def __init__(
        self,
        layers: LayerSet,
        plain: Mapping[str, Allocation],
        objective: Objective,
        meter: Meter,
        label: str,
        quota: Quota,
        final_cost: tuple[float, float],
    ) -> None:
        self._final_cost = final_cost
        self._layers, self._plain, self._objective = layers, plain, objective
        self._meter, self._label, self._quota = meter, label, quota
        self._sizes = quota.sizes
        self._trials: list[Trial] = []
        self._finals: list[Trial] = []
        self._directions: dict[tuple[int, ...], float] = {}
        self._proxies: dict[tuple[int, ...], float] = {}

    def run(self, further: Sequence[Further]) -> AllocationSearch:
        finished = "budget spent"
        with progress_bar("search", self._meter.total) as advance:
            self._advance: Advance = advance
            try:
                started = self._rules() and self._mix() and all(map(self._further, further))
                # Beside an allocation without whole layers there are none without these.
                if started and (0 in self._best.counts or (self._descend() and self._climb())):
                    finished = "no move helps any more"
                self._finish()
            except KeyboardInterrupt:
                if not self._trials:
                    raise
                note_interrupt()
                finished = INTERRUPTED
        best = min(self._finals, key=lambda trial: trial.kl, default=self._best)
        tried = {trial.name for trial in self._trials}
        names = [layer.name for layer in self._layers]
        counts = dict(zip(names, best.counts, strict=True))
        sizes = dict(zip(names, self._sizes, strict=True))
        return AllocationSearch(
            allocation=Allocation(counts, sizes, AUTO),
            winner=best.name,
            kl=best.kl,
            trials=tuple(self._trials),
            plain=tuple(name for name in self._plain if name in tried),
            proxies=len(self._proxies),
            repairs=self._meter.spent,
            seconds=self._meter.seconds,
            finished=finished,
            reference=dict(self._plain["erk"].densities) if "erk" in self._plain else {},
            label=self._label,
            finals=tuple(self._finals),
        )

    @property
    def _best(self) -> Trial:
        """The earliest of the closest."""
        return min(self._trials, key=lambda trial: trial.kl)

    @property
    def _ranked(self) -> list[Trial]:
        """The closest first, of equals the earliest."""
        return sorted(self._trials, key=lambda trial: trial.kl)

    def _rules(self) -> bool:
        """Try the plain rules; False when the budget is spent."""
        return all(self._exact(name, tuple(a.values())) for name, a in self._plain.items())

    def _mix(self) -> bool:
        """Try mixtures of the best rules; False when the budget is spent."""
        sound = [trial for trial in self._ranked if math.isfinite(trial.kl)]
        points = {trial.name: self._log(trial.counts) for trial in sound}
        mixtures: dict[str, Mixture] = {name: {name: 1.0} for name in points}

        def attempt(mixture: Mixture) -> bool:
            name = describe(mixture)
            mixtures[name] = mixture
            return self._exact(name, counts_of(mix(mixture, points), self._quota))

        if not all(map(attempt, first_mixtures(list(points)))):
            return False
        best = [mixtures[trial.name] for trial in self._ranked[:2] if trial.name in mixtures]
        return len(best) < 2 or attempt(halfway(*best))

    def _further(self, further: Further) -> bool:
        """Try what is measured now; False when the budget is spent."""
        if not self._meter.affords(further.cost + 1):  # without a trial they are of no use
            return False
        self._meter.charge(further.cost)
        return all(self._exact(name, tuple(counts)) for name, counts in further.found().items())

    def _descend(self) -> bool:
        """Follow the slopes of the loss from the best; False when the budget is spent."""
        radius, start, steps, slopes = _RADIUS, self._best.name, 0, None
        while radius >= _SMALLEST_RADIUS:
            best = self._best
            if not self._meter.affords(self._objective.slope_cost + 1):
                return False
            here = self._objective.slopes(self._named(best.counts))
            if here is None:
                return True
            self._meter.charge(self._objective.slope_cost)
            # Those of the steps before smooth out what is peculiar to this choice of weights.
            slopes = here if slopes is None else (slopes + here) / 2
            while self._best is best and radius >= _SMALLEST_RADIUS:
                change = downhill(slopes, best.counts, self._quota, radius)
                name = f"{start} after {steps + 1} step{'s' if steps else ''} downhill"
                point = self._log(best.counts) + change
                if not self._exact(name, counts_of(point, self._quota)):
                    return False
                radius *= _SHRINK if self._best is best else _GROW
            steps += 1
        return True

    def _climb(self) -> bool:
        """Local search from the best; True when it has come to its end within the budget."""
        walk = Climb(self._log(self._best.counts), self._best.name)
        value = self._proxy(walk.point)
        while value is not None:
            candidates = moves(self._layers, counts_of(walk.point, self._quota))
            if not any(walk.may_help(move) for move in candidates):
                return True
            for move in filter(walk.may_help, candidates):
                value = self._line(walk, move, value)
                if value is None:
                    return False
                if walk.unconfirmed >= _CONFIRM_AFTER:
                    value = self._confirm(walk, value)
                    if value is None:
                        return False
            if walk.unconfirmed:
                value = self._confirm(walk, value)
        return False

    def _line(self, walk: Climb, move: Move, value: float) -> float | None:
        """Try a step forth and back; the new value, or None when the budget is spent."""
        step = walk.step(move)
        for sign in walk.signs(move):
            target = walk.point + sign * step * move.direction
            point = self._log(counts_of(target, self._quota))
            found = self._proxy(point)
            if found is None:
                return None
            if found < value:
                walk.accept(move, sign, point)
                return found
        walk.refuse(move)
        return value

    def _confirm(self, walk: Climb, value: float) -> float | None:
        """Give what the walk has reached the real repair; where it is no better, go back."""
        before = self._best
        if not self._exact(walk.name, counts_of(walk.point, self._quota)):
            return None
        if self._best is not before:
            walk.confirm()
            return value
        walk.revert()
        return self._proxy(walk.point)

    def _finish(self) -> None:
        """Train the closest trial, and of the others the closest by direction."""
        cost, seconds = self._final_cost
        best = self._best
        others = [t for t in self._trials if t.counts != best.counts and math.isfinite(t.kl)]
        self._meter.release()
        affordable = self._meter.affords(_FINALISTS * cost, _FINALISTS * seconds)
        if not cost or not others or not affordable:
            return
        for trial in (best, min(others, key=lambda trial: self._directions[trial.counts])):
            kl = self._objective.final(self._named(trial.counts))
            self._meter.charge(cost)
            self._finals.append(Trial(trial.name, trial.counts, kl, self._meter.seconds))
            self._report()

    def _exact(self, name: str, counts: tuple[int, ...]) -> bool:
        """Try an allocation with the real repair; False when the budget is spent."""
        same = next((t for t in self._trials if t.counts == counts), None)
        if same is None:
            if self._trials and not self._meter.affords(1):
                return False
            kl = self._objective.exact(self._named(counts))
            if self._objective.final_cost:
                self._directions[counts] = self._objective.direction(self._named(counts))
            self._meter.charge(1)
        else:
            kl = same.kl
        self._trials.append(Trial(name, counts, kl, self._meter.seconds))
        self._report()
        return True

    def _proxy(self, point: Array) -> float | None:
        counts = counts_of(point, self._quota)
        if counts not in self._proxies:
            # What cannot be confirmed any more does not help.
            if not self._meter.affords(self._objective.proxy_cost + 1):
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
        self._advance(f"search, {self._label} {self._best.kl:.4f}", self._meter.done)
