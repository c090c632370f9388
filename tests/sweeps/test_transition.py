import itertools
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.sweeps.records import Cell, Record
from sparsemend.sweeps.transition import (
    crossing,
    leading,
    leads,
    mean_curve,
    monotone,
    spread,
    transitions,
)

GRID = [round(0.5 + 0.01 * i, 2) for i in range(49)]
CURVES = st.lists(st.floats(-0.5, 1.5).map(lambda x: round(x, 3)), min_size=1, max_size=12).map(
    lambda values: [(0.5 + 0.04 * i, value) for i, value in enumerate(values)]
)


def logistic(middle, slope):
    return [(s, 1 / (1 + math.exp(slope * (s - middle)))) for s in GRID]


def record(sparsity, top1, *, agreement=0.1, seed=0, rule="erk", dense=1.0, **cell):
    values = {"network": "n", "rule": rule, "mask": "magnitude", "repair": "batchnorm"} | cell
    return Record(
        Cell(**values, sparsity=sparsity, seed=seed),
        sparsity, dense, None, top1, 0.1, 0.0, agreement, 1.0,
    )  # fmt: skip


@pytest.mark.parametrize("level", [0.8, 0.5, 0.2, 0.37])
def test_a_line_is_crossed_where_it_says(level):
    line = [(s, 1.4 - s) for s in (0.5, 0.6, 0.9, 0.99, 1.3)]
    assert crossing(line, level) == pytest.approx(1.4 - level, abs=1e-12)


def test_a_logistic_curve_has_its_midpoint_and_band():
    curve = logistic(0.8712, 40.0)
    # Linear interpolation on steps of h errs by at most h²/8 · max |R''| / |R'|.
    error = 0.01**2 / 8 * 40
    for level in (0.8, 0.5, 0.2):
        exact = 0.8712 + math.log(1 / level - 1) / 40
        assert crossing(curve, level) == pytest.approx(exact, abs=error)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_points_plays_no_part(order):
    curve = [(0.7, 0.9), (0.8, 0.6), (0.9, 0.2)][::order]
    assert crossing(curve, 0.5) == pytest.approx(0.825)


def test_nothing_is_read_beyond_the_sweep():
    assert crossing([(0.8, 0.9), (0.9, 0.6)], 0.5) is None
    assert crossing([(0.8, 0.4), (0.9, 0.2)], 0.5) is None
    assert crossing([], 0.5) is None
    assert crossing([(0.9, 0.7)], 0.5) is None


def test_one_point_at_the_level_is_the_crossing():
    assert crossing([(0.9, 0.5)], 0.5) == 0.9
    assert crossing([(0.8, 0.9), (0.9, 0.5)], 0.5) == 0.9
    assert crossing([(0.8, 0.5), (0.9, 0.1)], 0.5) == 0.8


def test_a_plateau_at_the_level_counts_with_its_middle():
    curve = [(0.6, 0.9), (0.7, 0.5), (0.8, 0.5), (0.9, 0.5), (0.95, 0.1)]
    assert crossing(curve, 0.5) == pytest.approx(0.8)


def test_a_bump_is_pooled_before_it_is_read():
    # The two middle points violate the order; pooled they are 0.5 each.
    curve = [(0.6, 1.0), (0.7, 0.4), (0.8, 0.6), (0.9, 0.0)]
    assert [value for _, value in monotone(curve)] == pytest.approx([1.0, 0.5, 0.5, 0.0])
    assert crossing(curve, 0.5) == pytest.approx(0.75)
    assert crossing(curve, 0.25) == pytest.approx(0.85)


@given(CURVES)
def test_the_monotone_curve_falls_and_keeps_the_mean(curve):
    values = [value for _, value in monotone(curve)]
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert sum(values) == pytest.approx(sum(value for _, value in curve), abs=1e-9)
    if all(a[1] >= b[1] for a, b in itertools.pairwise(curve)):
        assert values == pytest.approx([value for _, value in curve])


@given(CURVES, st.floats(0.01, 0.99))
def test_the_monotone_curve_is_at_the_level_where_it_is_crossed(curve, level):
    found = crossing(curve, level)
    points = monotone(curve)
    if found is None:
        assert points[0][1] < level or points[-1][1] > level
    else:
        assert np.interp(found, *np.array(points).T) == pytest.approx(level, abs=1e-9)


def test_higher_levels_are_crossed_earlier():
    curve = logistic(0.8, 25.0)
    found = [crossing(curve, level) for level in (0.9, 0.8, 0.5, 0.2, 0.1)]
    assert found == sorted(found)


def test_spread_over_seeds():
    values = [0.91, 0.93, 0.95]
    found = spread([0.91, None, 0.93, 0.95])
    assert found.mean == pytest.approx(0.93)
    assert found.std == pytest.approx(statistics.stdev(values))
    assert found.count == 3
    assert spread([None, 0.9]).std is None
    assert (spread([None]).mean, spread([None]).count) == (None, 0)


def test_transitions_of_records():
    # A(S) falls from dense 0.9 to chance 0.1: R = 0.5 at top-1 0.5.
    records = [record(s, top1, dense=0.9, seed=seed)
               for seed, middle in ((0, 0.8), (1, 0.9))
               for s, top1 in ((middle - 0.1, 0.9), (middle + 0.1, 0.1))]  # fmt: skip
    (found,) = transitions(records, "accuracy")
    assert (found.network, found.rule, found.mask, found.repair) == (
        "n", "erk", "magnitude", "batchnorm",
    )  # fmt: skip
    assert found.midpoint.mean == pytest.approx(0.85)
    assert found.midpoint.std == pytest.approx(statistics.stdev([0.8, 0.9]))
    assert found.start.mean == pytest.approx(0.79)
    assert found.end.mean == pytest.approx(0.91)


def test_agreement_needs_no_labels():
    records = [record(s, None, dense=None, agreement=a) for s, a in ((0.8, 1.0), (0.9, 0.1))]
    assert transitions(records, "accuracy") == ()
    (found,) = transitions(records, "agreement")
    assert found.midpoint.mean == pytest.approx(0.85)
    assert (found.midpoint.std, found.midpoint.count) == (None, 1)


def test_every_rule_and_repair_has_its_own_transition():
    records = [record(s, 1 - s, rule=rule, repair=repair)
               for rule in ("rr", "erk")
               for repair in ("none", "mean")
               for s in (0.1, 0.9)]  # fmt: skip
    found = transitions(records, "accuracy")
    assert [(t.rule, t.repair) for t in found] == [
        ("rr", "none"), ("rr", "mean"), ("erk", "none"), ("erk", "mean"),
    ]  # fmt: skip


def test_two_lines_lead_on_either_side_of_where_they_meet():
    found = leading({"a": [(0.5, 1.0), (0.9, 0.0)], "b": [(0.5, 0.75), (0.9, 0.25)]})
    assert [rule for rule, *_ in found] == ["a", "b"]
    numbers = [x for _, *rest in found for x in rest]
    assert numbers == pytest.approx([0.5, 0.7, 0.25, 0.7, 0.9, 0.25])


def test_three_lines_within_one_step():
    # 1 − 2x is passed by 0.9 − x at 0.1, and that by 0.6 at 0.3.
    curves = {
        "steep": [(0.0, 1.0), (1.0, -1.0)],
        "middle": [(0.0, 0.9), (1.0, -0.1)],
        "flat": [(0.0, 0.6), (1.0, 0.6)],
    }
    found = leading(curves)
    assert [rule for rule, *_ in found] == ["steep", "middle", "flat"]
    assert [start for _, start, *_ in found] == pytest.approx([0.0, 0.1, 0.3])
    # The second leads by most where the first and the third meet, at 0.2; the third at the end.
    assert [margin for *_, margin in found] == pytest.approx([0.1, 0.1, 0.7])


def test_only_common_sparsities_are_compared():
    found = leading({"a": [(0.5, 1), (0.8, 0.5)], "b": [(0.6, 0.9), (0.9, 0.8)]})
    assert (found[0][1], found[-1][2]) == (0.6, 0.8)
    assert leading({"a": [(0.5, 1), (0.8, 0.5)]}) == []  # nobody to lead
    assert leading({"a": [(0.5, 1)], "b": [(0.6, 1), (0.7, 1)]}) == []
    assert leading({"a": [(0.5, 1)], "b": [(0.5, 0)]}) == []  # no stretch in one point
    assert leading({}) == []


def test_among_equals_the_leader_stays():
    flat = [(0.5, 1.0), (0.6, 1.0), (0.7, 0.5)]
    assert leading({"a": flat, "b": flat}) == [("a", 0.5, 0.7, 0.0)]
    ahead = [(0.5, 1.0), (0.6, 1.0), (0.7, 0.6), (0.8, 0.6)]
    behind = [(0.5, 0.9), (0.6, 1.0), (0.7, 0.6), (0.8, 0.6)]
    ((rule, *ends, margin),) = leading({"b": behind, "a": ahead})
    assert (rule, ends) == ("a", [0.5, 0.8])
    assert margin == pytest.approx(0.1)


@given(CURVES, CURVES)
def test_stretches_cover_the_common_range_and_the_leader_is_ahead(first, second):
    curves = {"a": first, "b": second}
    end = min(first[-1][0], second[-1][0])
    found = leading(curves)
    if end == 0.5:
        assert found == []
        return
    assert (found[0][1], found[-1][2]) == (0.5, end)
    for (_, _, stop, _), (_, start, *_) in itertools.pairwise(found):
        assert start == stop
    for rule, start, stop, margin in found:
        ahead = []
        for at in np.linspace(start, stop, 7):
            heights = {name: np.interp(at, *np.array(c).T) for name, c in curves.items()}
            ahead.append(2 * heights[rule] - sum(heights.values()))  # there are two
        assert min(ahead) >= -1e-9
        assert max(ahead) <= margin + 1e-9


def test_mean_curve_takes_what_all_seeds_have():
    found = mean_curve([[(0.5, 1.0), (0.6, 0.8), (0.7, 0.0)], [(0.5, 0.8), (0.6, 0.6)]])
    assert [x for point in found for x in point] == pytest.approx([0.5, 0.9, 0.6, 0.7])


def test_leads_of_records():
    records = [record(s, top1, rule=rule)
               for rule, ends in (("erk", (1.0, 0.1)), ("rr", (0.775, 0.325)))
               for s, top1 in zip((0.5, 0.9), ends, strict=True)]  # fmt: skip
    found = leads(records, "accuracy")
    assert [(lead.rule, lead.network, lead.repair) for lead in found] == [
        ("erk", "n", "batchnorm"), ("rr", "n", "batchnorm"),
    ]  # fmt: skip
    assert found[0].end == found[1].start == pytest.approx(0.7)
    assert leads([r for r in records if r.cell.rule == "rr"], "accuracy") == ()
