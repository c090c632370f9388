"""The search on functions of counts whose optimum is known."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.search.fakes import (
    RULES,
    Fake,
    bowl,
    check_budget,
    layer_set,
    outline,
    plain_rules,
    rough,
    slopes_of,
)

from sparsemend.allocation import WeightQuota
from sparsemend.progress import progress_shown
from sparsemend.recipe import Budget
from sparsemend.search.auto import Further, search_allocation
from sparsemend.search.directions import counts_of, log_densities

LAYERS = layer_set()
PLAIN = plain_rules(LAYERS)
KEEP = PLAIN["erk"].kept
SIZES = tuple(layer.size for layer in LAYERS)
QUOTA = WeightQuota.exactly(SIZES, KEEP)
MIXTURES = 5  # of three rules, of every two of them, of the best two so far
COUNTS = {name: tuple(allocation.values()) for name, allocation in PLAIN.items()}


def search(objective, repairs=math.inf, seconds=math.inf, layers=LAYERS, plain=PLAIN, **options):
    budget = Budget(repairs, seconds)
    return search_allocation(layers, plain, objective, budget, **options)


@pytest.mark.parametrize("seed", range(5))
def test_the_budget_of_the_plain_rules_gives_the_best_of_them(seed):
    objective = Fake(rough(seed))
    found = search(objective, len(PLAIN), further=[Further(pytest.fail, 1)])
    assert objective.asked == [("exact", counts) for counts in COUNTS.values()]
    by_rule = {name: rough(seed)(counts) for name, counts in COUNTS.items()}
    assert found.winner == min(by_rule, key=by_rule.__getitem__)
    assert found.kl == by_rule[found.winner]
    assert found.plain_kl == by_rule
    assert list(found.plain_kl.values()) == sorted(by_rule.values())
    assert found.plain == RULES
    assert dict(found.allocation) == dict(PLAIN[found.winner])
    assert found.allocation.rule == "auto"
    assert (found.repairs, found.proxies, found.finished) == (len(PLAIN), 0, "budget spent")
    assert found.reference == PLAIN["erk"].densities


@pytest.mark.parametrize("repairs", [0.01, 0.5, 1, 1.99])
def test_the_first_rule_is_tried_whatever_the_budget(repairs):
    objective = Fake(rough(0))
    found = search(objective, repairs)
    assert objective.asked == [("exact", COUNTS["global"])]
    assert (found.winner, found.plain, found.repairs) == ("global", ("global",), 1)
    # What to compare with is known all the same.
    assert found.reference == PLAIN["erk"].densities


objectives = st.tuples(st.sampled_from(("smooth", "rough", "misleading")), st.integers(0, 1000))


def make(kind, seed):
    if kind == "smooth":
        return Fake(bowl(LAYERS, KEEP, seed)[0], bowl(LAYERS, KEEP, seed, weight=2.0)[0])
    if kind == "rough":
        return Fake(rough(seed), rough(seed + 1))
    # The proxy has its optimum elsewhere.
    return Fake(bowl(LAYERS, KEEP, seed)[0], bowl(LAYERS, KEEP, seed + 1)[0])


def further():
    return {"elsewhere": bowl(LAYERS, KEEP, 99)[1]}


@settings(max_examples=40)
@given(objectives, st.lists(st.floats(0.1, 45), min_size=2, max_size=4))
def test_a_larger_budget_goes_on_where_a_smaller_one_stops(which, budgets):
    found = []
    for repairs in sorted(budgets):
        objective = make(*which)
        result = search(objective, repairs, further=[Further(further, 1)])
        check_budget(result, LAYERS)
        measured = result.repairs - objective.cost
        assert measured in (pytest.approx(0), pytest.approx(1))  # the further ones
        assert result.repairs <= max(1, repairs) * (1 + 1e-9)
        assert result.proxies == len({c for kind, c in objective.asked if kind == "proxy"})
        # Nothing is computed twice.
        assert len(objective.asked) == len(set(objective.asked))
        found.append(result)
    for one, other in itertools.pairwise(found):
        assert outline(other)[: len(one.trials)] == outline(one)
        assert other.kl <= one.kl


@settings(max_examples=10)
@given(objectives)
def test_the_same_search_twice(which):
    one, other = (search(make(*which), 25, further=[Further(further)]) for _ in range(2))
    assert outline(one) == outline(other)
    assert one.allocation == other.allocation
    assert (one.winner, one.proxies, one.repairs) == (other.winner, other.proxies, other.repairs)


@pytest.mark.parametrize("seed", range(6))
def test_a_smooth_function_is_nearly_minimised(seed):
    function, _ = bowl(LAYERS, KEEP, seed)
    found = search(Fake(function), 40)
    plain = min(found.plain_kl.values())
    assert found.kl < 0.1 * plain
    assert found.kl < 0.5
    assert found.winner.endswith(" moves")
    # Without end it comes to the optimum and stops by itself.
    last = search(Fake(function))
    assert last.kl < 0.02 * plain
    assert last.finished == "no move helps any more"


@pytest.mark.parametrize("kind", ["rough", "misleading"])
def test_a_cheap_repair_that_misleads_costs_only_time(kind):
    for seed in range(5):
        found = search(make(kind, seed))
        assert found.finished == "no move helps any more"
        assert found.kl <= min(found.plain_kl.values())


def test_what_the_real_repair_does_not_confirm_is_taken_back():
    """A proxy that likes every move better than the last leads nowhere."""
    likes = itertools.count()
    objective = Fake(
        lambda counts: 0.0 if counts == COUNTS["erk"] else 1.0, lambda _: -float(next(likes))
    )
    found = search(objective, 20 + MIXTURES)
    names = [trial.name for trial in found.trials[len(RULES) + MIXTURES :]]
    assert len(names) > 2
    assert set(names) <= {f"erk after {n} moves" for n in (2, 3)} | {"erk after 1 move"}
    assert (found.winner, found.kl) == ("erk", 0)


def test_a_search_that_starts_at_the_optimum_ends():
    layers = layer_set(((4, 10), (10, 4)))
    plain = plain_rules(layers, 0.5, ("uniform", "erk"))
    goal = (25, 15)

    def function(counts):
        return float(abs(counts[0] - goal[0]))

    found = search(
        Fake(function), layers=layers, plain=plain, further=[Further(lambda: {"goal": goal})]
    )
    assert found.finished == "no move helps any more"
    assert (found.winner, found.kl) == ("goal", 0)


def test_a_single_layer_has_one_allocation():
    layers = layer_set(((4, 10),))
    objective = Fake(rough(0))
    found = search(objective, layers=layers, plain=plain_rules(layers, 0.5, ("erk", "uniform")))
    assert dict(found.allocation) == {"layer0": 20}
    assert [kind for kind, _ in objective.asked] == ["exact", "proxy"]
    assert found.plain_kl == {"erk": found.kl, "uniform": found.kl}
    assert found.repairs == 1 + Fake.proxy_cost


def test_mixtures_of_the_best_rules_follow_the_rules():
    pair = ("lamp", "uniform")
    goal = sum(log_densities(COUNTS[rule], SIZES) for rule in pair) / 2
    best = counts_of(goal, QUOTA)

    def function(counts):
        return float(np.abs(log_densities(counts, SIZES) - goal).max())

    found = search(Fake(function), len(RULES) + MIXTURES)
    assert set(list(found.plain_kl)[:2]) == set(pair)
    assert tuple(found.allocation.values()) == best
    assert found.winner in {"0.50 lamp + 0.50 uniform", "0.50 uniform + 0.50 lamp"}
    assert len(found.trials) == len(RULES) + MIXTURES
    # The last one lies between the best two of all that went before.
    first, second = sorted(found.trials[:-1], key=lambda trial: trial.kl)[:2]
    middle = log_densities(first.counts, SIZES) + log_densities(second.counts, SIZES)
    assert found.trials[-1].counts == pytest.approx(counts_of(middle / 2, QUOTA), abs=2)


def test_rules_that_break_the_network_are_not_mixed():
    objective = Fake(lambda counts: 0.0 if counts == COUNTS["erk"] else math.inf)
    names = [trial.name for trial in search(objective, len(RULES) + 3).trials]
    assert names[: len(RULES)] == [*RULES]
    assert not [name for name in names if "+ 0" in name]


def test_further_allocations_are_tried_after_the_rules_and_may_win():
    function, best = bowl(LAYERS, KEEP)
    budget = len(RULES) + MIXTURES + 2
    found = search(
        Fake(function), budget, further=[Further(lambda: {"far": COUNTS["erk"], "good": best})]
    )
    names = [trial.name for trial in found.trials]
    assert (names[: len(RULES)], names[-2:]) == ([*RULES], ["far", "good"])
    assert (found.winner, found.kl) == ("good", 0)
    assert found.repairs == budget - 1  # the first is known already
    assert found.plain == RULES


def test_what_cannot_be_confirmed_is_not_tried():
    # Room to measure further ones, but for no trial of them; then for cheap trials only.
    tried = len(RULES) + MIXTURES
    found = search(Fake(rough(0)), tried + 1.5, further=[Further(pytest.fail, 1)])
    assert (found.repairs, found.proxies) == (tried, 0)
    objective = Fake(rough(0))
    search(objective, tried + 0.9)
    assert {kind for kind, _ in objective.asked} == {"exact"}


@pytest.mark.parametrize("bad", [math.inf, 1e300])
def test_rules_that_break_the_network(bad):
    values = {COUNTS["global"]: bad, COUNTS["erk"]: bad}
    found = search(Fake(lambda counts: values.get(counts, 1.0)), 12)
    assert found.kl == 1
    assert found.winner == "lamp"


class Interrupted(Fake):
    """Ctrl-C at the n-th question."""

    def __init__(self, at, *functions):
        super().__init__(*functions)
        self._at = at

    def _count(self):
        if len(self.asked) == self._at:
            raise KeyboardInterrupt

    def exact(self, counts):
        self._count()
        return super().exact(counts)

    def proxy(self, counts):
        self._count()
        return super().proxy(counts)


@pytest.mark.parametrize("at", [1, 3, 5, 6, 12, 40])
def test_an_interrupt_returns_the_best_so_far(at):
    function, _ = bowl(LAYERS, KEEP)
    whole, objective = search(Fake(function)), Interrupted(at, function)
    found = search(objective)
    assert found.finished == "interrupted"
    assert outline(found) == outline(whole)[: len(found.trials)]
    assert found.kl == min(trial.kl for trial in found.trials)
    assert len(objective.asked) == at
    check_budget(found, LAYERS)


def test_an_interrupt_while_further_ones_are_measured():
    def measure():
        raise KeyboardInterrupt

    found = search(Fake(rough(0)), further=[Further(measure)])
    assert found.finished == "interrupted"
    assert found.plain == RULES


def test_an_interrupt_before_there_is_anything_to_return():
    with pytest.raises(KeyboardInterrupt):
        search(Interrupted(0, rough(0)))


class Clock(SimpleNamespace):
    """Stands for the module ``time``."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_a_time_is_kept(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("sparsemend.search.meter.time", clock)

    class Slow(Fake):
        def exact(self, counts):
            clock.now += 60
            return super().exact(counts)

        def proxy(self, counts):
            clock.now += 10
            return super().proxy(counts)

    function, _ = bowl(LAYERS, KEEP)
    found = search(Slow(function), seconds=600)
    # Nothing starts after the time is up; what has started is finished.
    assert 600 <= found.seconds < 660
    assert found.finished == "budget spent"
    assert [trial.seconds for trial in found.trials[:5]] == [60, 120, 180, 240, 300]
    assert outline(found) == outline(search(Fake(function)))[: len(found.trials)]
    clock.now = 0
    assert len(search(Slow(function), seconds=1).trials) == 1


def test_progress_shows_the_best_so_far(capsys):
    function, _ = bowl(LAYERS, KEEP)
    budget = Budget(10)
    with progress_shown(True):
        found = search_allocation(LAYERS, PLAIN, Fake(function), budget)
    assert f"search, KL {found.kl:.4f}" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(5))
def test_steps_down_the_slope_come_nearer(seed):
    value, _ = bowl(LAYERS, KEEP, seed)
    started = len(PLAIN) + MIXTURES
    found = search(Fake(value, slopes=slopes_of(value)), started + 12)
    assert "downhill" in found.winner
    assert found.kl < 0.5 * min(trial.kl for trial in found.trials[:started])
    check_budget(found, LAYERS)


def test_slopes_are_paid_for_and_asked_for_where_a_step_can_follow():
    value, _ = bowl(LAYERS, KEEP, 0)
    started = len(PLAIN) + MIXTURES
    for extra, asked in ((1.99, []), (2, ["slopes", "exact"]), (3, ["slopes", "exact", "exact"])):
        # Up the slope nothing helps, so that the steps after the first need no further slopes.
        objective = Fake(value, slopes=lambda counts: -slopes_of(value)(counts))
        found = search(objective, started + extra)
        assert [kind for kind, _ in objective.asked[started:] if kind != "proxy"] == asked
        assert found.repairs == pytest.approx(objective.cost)
        assert found.repairs <= started + extra


def test_where_no_step_helps_the_descent_ends_and_the_moves_begin():
    value, _ = bowl(LAYERS, KEEP, 0)
    objective = Fake(value, slopes=lambda counts: -slopes_of(value)(counts))
    found = search(objective, 60)
    kinds = [kind for kind, _ in objective.asked[len(PLAIN) + MIXTURES :]]
    assert kinds[:5] == ["slopes", "exact", "exact", "exact", "exact"]  # 0.4, 0.2, 0.1, 0.05
    assert kinds[5] == "proxy"
    assert "slopes" not in kinds[5:]
    assert "downhill" not in found.winner
    assert "move" in found.winner


def test_without_slopes_the_moves_begin_at_once():
    objective = Fake(bowl(LAYERS, KEEP, 0)[0])
    objective.slopes = lambda _: None
    search(objective, len(PLAIN) + MIXTURES + 5)
    assert objective.asked[len(PLAIN) + MIXTURES][0] == "proxy"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("repairs", [10, 25])
def test_the_closest_by_both_judges_are_trained_and_the_closer_is_kept(seed, repairs):
    final, direction = rough(seed + 1), rough(seed + 2)
    objective = Fake(rough(seed), final=final, direction=direction)
    found = search(objective, repairs)
    first = min(found.trials, key=lambda trial: trial.kl)
    others = [trial for trial in found.trials if trial.counts != first.counts]
    second = min(others, key=lambda trial: direction(trial.counts))
    assert [trial.counts for trial in found.finals] == [first.counts, second.counts]
    assert [kind for kind, _ in objective.asked[-2:]] == ["final", "final"]
    assert [trial.kl for trial in found.finals] == [final(trial.counts) for trial in found.finals]
    best = min(found.finals, key=lambda trial: trial.kl)
    assert (found.winner, found.kl) == (best.name, best.kl)
    assert tuple(found.allocation.values()) == best.counts
    assert found.repairs == pytest.approx(objective.cost)
    assert found.repairs <= repairs
    assert f"after training: {first.name} {final(first.counts):.4f}, {second.name}" in str(found)
    assert [trial["kl"] for trial in found.to_dict()["finals"]] == [t.kl for t in found.finals]


def test_where_a_budget_is_too_small_for_both_all_of_it_goes_to_trials():
    objective = Fake(rough(0), final=rough(1))
    found = search(objective, len(RULES) + 3)
    assert {kind for kind, _ in objective.asked} == {"exact"}
    assert (found.finals, found.repairs) == ((), len(RULES) + 3)


@pytest.mark.parametrize(("seconds", "trained"), [(60, True), (80, False)])
def test_of_a_time_as_much_is_kept_as_training_takes(seconds, trained, monkeypatch):
    """Of 200 seconds two trainings take 120, or 160, which is too much of it."""
    clock = SimpleNamespace(now=0.0)
    clock.monotonic = lambda: clock.now
    monkeypatch.setattr("sparsemend.search.meter.time", clock)

    def repair(counts):
        clock.now += 5
        return rough(0)(counts)

    def train(counts):
        clock.now += 5 + seconds
        return rough(1)(counts)

    objective = Fake(repair, final=train, proxy=rough(0), direction=rough(0))
    objective.seconds = seconds
    found = search(objective, seconds=200)
    assert (len(found.finals) == 2) == trained
    assert clock.now <= 200


def test_a_single_sound_trial_has_nobody_to_be_compared_with():
    objective = Fake(lambda counts: 0.0 if counts == COUNTS["erk"] else math.inf, final=rough(1))
    found = search(objective, 20)
    assert (found.winner, found.finals) == ("erk", ())
    assert "final" not in {kind for kind, _ in objective.asked}


def test_an_interrupted_final_leaves_those_before_it():
    class Late(Interrupted):
        def final(self, counts):
            self._count()
            return super().final(counts)

    whole = Fake(rough(0), final=rough(1))
    search(whole, 12)
    for missing in (1, 2):
        objective = Late(len(whole.asked) - missing, rough(0))
        objective.final_cost = whole.final_cost
        found = search(objective, 12)
        assert found.finished == "interrupted"
        assert len(found.finals) == 2 - missing
        assert found.winner == min(found.trials, key=lambda trial: trial.kl).name
