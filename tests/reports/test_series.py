import statistics

import pytest
from tests.reports.samples import (
    MIDPOINTS,
    SPARSITIES,
    make_records,
    make_transition,
    make_transitions,
)

from sparsemend.reports.series import (
    Point,
    by_midpoint,
    curves,
    has_curves,
    measure_of,
    midpoint_pairs,
    setting_title,
    stays_above,
    transitions_of,
)

KEY = ("net", "magnitude", "batchnorm")


def test_mean_and_deviation_over_seeds():
    records = make_records()
    found = curves(records, lambda r: r.top1_repaired)
    assert list(found) == [KEY]
    assert list(found[KEY]) == list(MIDPOINTS)
    for rule, curve in found[KEY].items():
        assert [p.sparsity for p in curve] == list(SPARSITIES)
        for point in curve:
            values = [
                r.top1_repaired
                for r in records
                if (r.cell.rule, r.cell.sparsity) == (rule, point.sparsity)
            ]
            assert point.mean == pytest.approx(statistics.fmean(values))
            assert point.std == pytest.approx(statistics.stdev(values))
            assert point.count == 3


def test_what_is_not_known_is_left_out():
    assert curves(make_records(labels=False), lambda r: r.top1_repaired) == {}
    assert measure_of(make_records(labels=False)) == "agreement"
    assert measure_of(make_records()) == "accuracy"


def test_one_seed_has_no_deviation():
    found = curves(make_records(seeds=(7,)), lambda r: r.agreement)
    assert all(p.std == 0 and p.count == 1 for c in found[KEY].values() for p in c)


def test_titles_name_the_mask_where_it_tells_settings_apart():
    other = ("net", "gradual", "batchnorm")
    assert setting_title(KEY, [KEY]) == "net, repair batchnorm"
    assert setting_title(KEY, [KEY, other]) == "net, repair batchnorm, mask magnitude"


def test_order_of_transitions():
    found = transitions_of(make_transitions(), KEY, "accuracy")
    assert set(found) == set(MIDPOINTS)
    above, below = make_transition("above", None), make_transition("below", None)
    shapes = {"above": (Point(0.9, 0.7, 0, 1),), "below": (Point(0.9, 0.1, 0, 1),)}
    ordered = by_midpoint([below, *found.values(), above], shapes)
    assert [t.rule for t in ordered] == ["above", "global", "rr", "erk", "below"]


def test_staying_above():
    assert stays_above((Point(0.5, 0.9, 0, 1), Point(0.9, 0.5, 0, 1)), 0.5)
    assert not stays_above((Point(0.9, 0.49, 0, 1),), 0.5)
    assert not stays_above((), 0.5)


def test_few_sparsities_make_no_curve():
    assert has_curves(make_records(sparsities=SPARSITIES[:4]))
    assert not has_curves(make_records(sparsities=SPARSITIES[:3]))
    assert not has_curves(())


def test_pairs_of_midpoints_are_known_both_ways():
    pairs = midpoint_pairs(make_transitions(erk=None))
    assert len(pairs) == len(MIDPOINTS) - 1
    for one, two in pairs:
        assert (one.measure, two.measure) == ("accuracy", "agreement")
        assert one.rule == two.rule
