import pytest
from tests.report.drawing import grouped, marks, panels
from tests.report.samples import make_allocation, make_compression

from sparsemend.report import Contents
from sparsemend.report._figure import Dot, Line
from sparsemend.report.allocations import figures, side_by_side

ONE, TWO = make_allocation("erk", 50, 20, 30), make_allocation("global", 10, 10, 80)


def test_one_column_a_rule_with_every_density():
    found = panels(side_by_side([ONE, TWO]))
    assert [panel.title for panel in found] == ["erk", "global"]
    for allocation, panel in zip((ONE, TWO), found, strict=True):
        overall = next(marks(panel, Line))
        assert [x for x, _ in overall.points] == pytest.approx([0.1, 0.1])
        for row, (layer, group) in enumerate(grouped(panel).items()):
            (dot,) = (m for m in group.marks if isinstance(m, Dot))
            assert (dot.x, dot.y) == (allocation.densities[layer], row)
            assert 0 <= panel.x.scale.position(dot.x) <= 1


def test_table():
    rows = side_by_side([ONE, TWO]).table.rows
    assert rows[0] == ("erk", "a", 50, 100, 0.5)
    assert len(rows) == 6
    assert sum(row[2] for row in rows if row[0] == "global") == 100


def test_the_chosen_allocation_comes_first_and_once():
    chosen = make_compression().allocation
    contents = Contents(compression=make_compression(), allocations=(ONE, TWO, ONE))
    (figure,) = figures(contents)
    assert [panel.title for panel in panels(figure)] == ["global", "erk"]
    shown = {row[1]: row[2] for row in figure.table.rows if row[0] == "global"}
    assert shown == dict(chosen)


def test_other_layers_and_empty_ones_are_left_out():
    empty = make_allocation("mine", 0, 20, 80)
    other = make_allocation("erk", 50, 20, 30, names=("a", "b", "z"))
    mine, erk = panels(side_by_side([empty, other]))
    assert set(grouped(mine)) == {"b", "c"}
    assert set(grouped(erk)) == {"a", "b", "z"}


def test_nothing_to_show():
    assert list(figures(Contents())) == []
