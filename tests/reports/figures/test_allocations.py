import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import MIDPOINTS, make_allocation, make_compression, make_records

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Dot, Line
from sparsemend.reports.figures.allocations import Division, figures, of_sweep, side_by_side

ONE, TWO = make_allocation("erk", 50, 20, 30), make_allocation("global", 10, 10, 80)


def test_one_column_a_rule_with_every_density():
    found = panels(side_by_side([Division.of(ONE), Division.of(TWO)]))
    assert [panel.title for panel in found] == ["erk", "global"]
    for allocation, panel in zip((ONE, TWO), found, strict=True):
        overall = next(marks(panel, Line))
        assert [x for x, _ in overall.points] == pytest.approx([0.1, 0.1])
        for row, (layer, group) in enumerate(grouped(panel).items()):
            (dot,) = (m for m in group.marks if isinstance(m, Dot))
            assert (dot.x, dot.y) == (allocation.densities[layer], row)
            assert 0 <= panel.x.scale.position(dot.x) <= 1


def test_table():
    rows = side_by_side([Division.of(ONE), Division.of(TWO)]).table.rows
    assert rows[0] == ("erk", "a", 0.5, 50, 100)
    assert len(rows) == 6
    assert sum(row[3] for row in rows if row[0] == "global") == 100


def test_the_chosen_allocation_comes_first_and_once():
    chosen = make_compression().allocation
    contents = Contents(compression=make_compression(), allocations=(ONE, TWO, ONE))
    (figure,) = figures(contents)
    assert [panel.title for panel in panels(figure)] == ["global", "erk"]
    shown = {row[1]: row[3] for row in figure.table.rows if row[0] == "global"}
    assert shown == dict(chosen)


def test_other_layers_are_left_out_and_empty_ones_hollow():
    empty = make_allocation("mine", 0, 20, 80)
    other = make_allocation("erk", 50, 20, 30, names=("a", "b", "z"))
    figure = side_by_side([Division.of(empty), Division.of(other)])
    mine, erk = panels(figure)
    assert set(grouped(mine)) == {"b", "c"}
    assert set(grouped(erk)) == {"a", "b", "z"}
    (hollow,) = (mark for mark in mine.marks if isinstance(mark, Dot))
    assert (hollow.hollow, hollow.y) == (True, 0)
    assert mine.x.scale.position(hollow.x) == 0
    assert figure.caption.endswith("Hollow: given up whole.")
    assert "Hollow" not in side_by_side([Division.of(other)]).caption


def test_nothing_kept_is_left_out():
    nothing = make_allocation("mine", 0, 0, 0)
    (figure,) = figures(Contents(allocations=(nothing, ONE)))
    assert [panel.title for panel in panels(figure)] == ["erk"]
    assert list(figures(Contents(allocations=(nothing,)))) == []


def test_nothing_to_show():
    assert list(figures(Contents())) == []


def test_a_sweep_at_the_sparsity_nearest_to_ninety_percent():
    records = make_records(networks=("a", "b"))
    found = dict(of_sweep(records))
    assert list(found) == ["a", "b"]
    assert {d.sparsity for d in found["a"]} == {0.9}
    one, two = figures(Contents(records=records))
    assert (one.key, two.key) == ("allocations-1", "allocations-2")
    assert one.title.endswith(": a")
    assert [p.title for p in panels(one)] == list(MIDPOINTS)
    assert one.table.rows[0] == ("global", "conv1", pytest.approx(0.1), None, None)
    assert "weights kept" not in one.caption
