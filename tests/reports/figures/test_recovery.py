import dataclasses

import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import (
    MIDPOINTS,
    SPARSITIES,
    make_records,
    make_transition,
    make_transitions,
    recovery_at,
)

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Area, Box, Dot, Label, Line
from sparsemend.reports.figures.recovery import figures, recovery
from sparsemend.sweeps import Lead, Spread


def parts(records=None, transitions=None):
    return panels(
        recovery(
            make_records() if records is None else records,
            make_transitions() if transitions is None else transitions,
        )
    )


def test_curves_with_bands():
    above, _ = parts()
    assert len(list(marks(above, Area))) == len(MIDPOINTS)
    for rule, midpoint in MIDPOINTS.items():
        dots = [m for m in grouped(above)[rule].marks if isinstance(m, Dot)]
        assert [d.x for d in dots] == list(SPARSITIES)
        values = [
            sum(recovery_at(s, midpoint + 0.002 * k) for k in range(3)) / 3 for s in SPARSITIES
        ]
        assert [d.y for d in dots] == pytest.approx(values)
        assert "over 3 seeds" in dots[0].tip


def test_one_seed_has_no_band():
    above, _ = parts(make_records(seeds=(0,)))
    assert list(marks(above, Area)) == []


def test_the_band_of_the_transition_is_marked():
    above, _ = parts()
    (band,) = marks(above, Box)
    assert (band.y0, band.y1) == (0.2, 0.8)
    half = next(m for m in marks(above, Line) if m.dash)
    assert {y for _, y in half.points} == {0.5}
    drops = {m.points[0][0] for m in marks(above, Line) if m.points[0][0] == m.points[1][0]}
    assert drops == set(MIDPOINTS.values())


def test_transitions_are_marked_and_written_out_latest_first():
    _, below = parts()
    assert below.y.scale.names == ("global", "rr", "erk")
    for row, rule in enumerate(below.y.scale.names):
        (dot,) = grouped(below)[rule].marks
        assert (dot.x, dot.y) == (MIDPOINTS[rule], row)
        thick = next(m for m in marks(below, Line) if m.width == 4 and m.points[0][1] == row)
        ends = (MIDPOINTS[rule] - 0.015, MIDPOINTS[rule] + 0.015)
        assert [x for x, _ in thick.points] == pytest.approx(ends)
        assert not thick.dash
    labels = [m.text for m in marks(below, Label)]
    assert labels[0] == "90.0 ± 0.2\u00a0%"


def test_both_panels_share_the_axis_of_sparsity():
    above, below = parts()
    assert above.x.scale == below.x.scale
    assert not above.x.labels
    assert below.x.labels


def test_what_the_sweep_does_not_cross_is_said():
    transitions = [make_transition("global", None), make_transition("erk", 0.86)]
    records = make_records(midpoints={"global": 0.99, "erk": 0.86})
    _, below = parts(records, transitions)
    assert next(m.text for m in marks(below, Label)) == "> 96\u00a0%"
    _, below = parts(make_records(midpoints={"global": 0.3}), [make_transition("global", None)])
    assert [m.text for m in marks(below, Label)] == ["< 50\u00a0%"]


def test_an_end_outside_of_the_sweep_runs_out_dashed():

    whole = make_transition("global", 0.9)
    cut = dataclasses.replace(whole, end=Spread(None, None, 0))
    _, below = parts(make_records(midpoints={"global": 0.9}), [cut])
    thick = next(m for m in marks(below, Line) if m.width == 4)
    assert thick.dash
    assert thick.points[1][0] == below.x.scale.high
    (dot,) = grouped(below)["global"].marks
    assert "20 % recovered not within this sweep" in dot.tip


def test_without_labels_it_is_agreement():
    figure = recovery(make_records(labels=False), make_transitions())
    assert "agreement" in figure.caption
    above, below = panels(figure)
    assert above.y.title == "recovery of agreement"
    dots = list(marks(below, Dot))
    assert {d.x for d in dots} == {m - 0.005 for m in MIDPOINTS.values()}


def test_one_plate_a_setting():
    records = make_records(networks=("a", "b"), repairs=("batchnorm", "reconstruct"))
    figure = recovery(records, ())
    assert [plate.title for plate in figure.plates] == [
        "a, repair batchnorm",
        "a, repair reconstruct",
        "b, repair batchnorm",
        "b, repair reconstruct",
    ]
    assert all(len(plate.rows) == 1 for plate in figure.plates)


def test_values_beyond_nought_and_one_are_not_cut():
    records = [
        dataclasses.replace(r, top1_repaired=0.05 if r.cell.sparsity > 0.9 else 0.8)
        for r in make_records(seeds=(0,))
    ]
    above, _ = parts(records)
    assert above.y.scale.low < 0
    assert above.y.scale.high > 1
    assert all(0 <= above.y.scale.position(d.y) <= 1 for d in marks(above, Dot))


def test_table_holds_points_and_transitions():
    rows = recovery(make_records(), make_transitions()).table.rows
    points = [row for row in rows if row[4] == "recovery of accuracy"]
    assert len(points) == len(MIDPOINTS) * len(SPARSITIES)
    found = {row[3]: row[5] for row in rows if row[4] == "midpoint of transition"}
    assert found == MIDPOINTS


def test_few_sparsities_are_no_curve():
    few = make_records(sparsities=SPARSITIES[:3])
    assert list(figures(Contents(records=few))) == []
    assert len(list(figures(Contents(records=make_records())))) == 1


def test_which_rule_is_ahead():
    ahead = [
        Lead("net", "magnitude", "batchnorm", "accuracy", "rr", 0.5, 0.85),
        Lead("net", "magnitude", "batchnorm", "accuracy", "global", 0.85, 0.96),
        Lead("other", "magnitude", "batchnorm", "accuracy", "erk", 0.5, 0.96),
        Lead("net", "magnitude", "batchnorm", "agreement", "erk", 0.5, 0.96),
    ]
    _, below = panels(recovery(make_records(), make_transitions(), ahead))
    assert below.y.scale.names == ("global", "rr", "erk", "ahead")
    boxes = list(marks(below, Box))
    assert [(b.x0, b.x1) for b in boxes] == [(0.5, 0.85), (0.85, 0.96)]
    colours = [next(d.colour for d in grouped(below)[rule].marks) for rule in ("rr", "global")]
    assert [b.colour for b in boxes] == colours
    assert boxes[0].tip == "rr recovers most from 50\u00a0% to 85\u00a0%"


def test_networks_with_and_without_labels_have_a_figure_each():
    records = (*make_records(), *make_records(networks=("other",), labels=False))
    found = list(figures(Contents(records=records, transitions=make_transitions())))
    assert [figure.key for figure in found] == ["recovery-1", "recovery-2"]
    assert [figure.plates[0].title for figure in found] == [
        "net, repair batchnorm",
        "other, repair batchnorm",
    ]
    assert {row[0] for row in found[1].table.rows} == {"other"}


def test_seeds_beyond_the_sweep_are_counted():
    whole = make_transition("global", 0.9)
    partly = dataclasses.replace(whole, midpoint=Spread(0.9, 0.002, 2))
    _, below = parts(transitions=[partly])
    assert next(m.text for m in marks(below, Label)) == "90.0 ± 0.2\u00a0% (2 of 3)"
