import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import MIDPOINTS, make_transitions

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Dot, Label
from sparsemend.reports.figures.labelfree import figures, label_free
from sparsemend.reports.series import midpoint_pairs


def test_both_midpoints_of_every_rule():
    (panel,) = panels(label_free(midpoint_pairs(make_transitions())))
    for row, rule in enumerate(MIDPOINTS):
        labelled, free = grouped(panel)[rule].marks
        assert (labelled.x, labelled.hollow) == (MIDPOINTS[rule], False)
        assert (free.x, free.hollow) == (MIDPOINTS[rule] - 0.005, True)
        assert labelled.y == free.y == row
    assert [m.text for m in marks(panel, Label)] == ["−0.5 points"] * 3
    assert all(0 <= panel.x.scale.position(d.x) <= 1 for d in marks(panel, Dot))


def test_only_where_both_are_known():
    only = [t for t in make_transitions() if t.measure == "agreement"]
    assert list(figures(Contents(transitions=tuple(only)))) == []


def test_table():
    (figure,) = figures(Contents(transitions=make_transitions()))
    assert [row[3:] for row in figure.table.rows] == [
        (rule, m, pytest.approx(m - 0.005)) for rule, m in MIDPOINTS.items()
    ]
