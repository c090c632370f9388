from sparsemend.reports.drawing.figure import Area, Dot, Group, Line
from sparsemend.reports.figures._curves import curve_marks, spread_text
from sparsemend.reports.series import Point


def test_text_of_a_point():
    assert spread_text(Point(0.9, 0.5, 0, 1)) == "50\u00a0%"
    assert spread_text(Point(0.9, 0.5, 0.01, 3)) == "50\u00a0% ± 1\u00a0% over 3 seeds"


def test_a_curve_has_a_band_where_seeds_differ():
    curve = (Point(0.5, 0.9, 0.0, 2), Point(0.9, 0.4, 0.1, 2))
    area, line, group = curve_marks("erk", curve, "orange", "square", "top-1")
    assert isinstance(area, Area)
    assert (area.low, area.high) == ((0.9, 0.4 - 0.1), (0.9, 0.5))
    assert isinstance(line, Line)
    assert line.points == ((0.5, 0.9), (0.9, 0.4))
    assert isinstance(group, Group)
    assert [(m.x, m.y) for m in group.marks if isinstance(m, Dot)] == list(line.points)
    same = (Point(0.5, 0.9, 0.0, 2), Point(0.9, 0.4, 0.0, 2))
    assert not any(isinstance(m, Area) for m in curve_marks("erk", same, "blue", "circle", "kl"))
