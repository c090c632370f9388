import math

import pytest
from tests.reports.marks import grouped, panels
from tests.reports.samples import make_compression

from sparsemend.layers import Coverage, LeftOut
from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Box
from sparsemend.reports.drawing.text import number
from sparsemend.reports.figures.outcome import figures


def drawn(**changes):
    return {f.key: f for f in figures(Contents(compression=make_compression(**changes)))}


def bars(figure):
    (panel,) = panels(figure)
    return {
        name: next(m for m in g.marks if isinstance(m, Box)) for name, g in grouped(panel).items()
    }


def test_bars_are_as_long_as_their_values():
    found = drawn()
    assert list(found) == ["before-and-after", "tried", "seconds"]
    lengths = {name: bar.x1 for name, bar in bars(found["before-and-after"]).items()}
    assert lengths == {"dense": 0.9, "pruned": 0.125, "repaired": 0.75}
    assert {name: bar.x1 for name, bar in bars(found["seconds"]).items()} == {
        "allocate": 0.5,
        "repair": 9.5,
    }
    assert "10 in all" in found["seconds"].caption
    for figure in found.values():
        assert dict(figure.table.rows) == {name: bar.x1 for name, bar in bars(figure).items()}


def test_the_ending_that_was_taken_stands_out():
    colours = {name: bar.colour for name, bar in bars(drawn()["tried"]).items()}
    assert colours == {"reconstruct": "blue", "batchnorm": "grey"}


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_endings_without_a_finite_divergence(value):
    for tried in ({"a": value, "b": 0.5}, {"b": 0.5, "a": value}):
        found = bars(drawn(tried=tried)["tried"])
        assert (found["a"].x1, found["a"].colour, found["a"].tip) == (0, "grey", number(value))
        assert (found["b"].x1, found["b"].colour) == (0.5, "blue")
    assert len(bars(drawn(tried={"a": value, "b": value})["tried"])) == 2


def test_only_what_is_known():
    nothing = {"top1_dense": None, "top1_pruned": None, "top1_repaired": None}
    assert list(drawn(**nothing, tried={"x": 1.0}, seconds={})) == []
    assert list(figures(Contents())) == []


def test_coverage_says_what_was_left_out_and_why():
    left = (LeftOut("embed", 300, "looked up", multiplied=False), LeftOut("w", 500, "odd", True))
    figure = drawn(coverage=Coverage(2000, 1000, left))["coverage"]
    lengths = {name: bar.x1 for name, bar in bars(figure).items()}
    assert lengths == {
        "all parameters": 2000,
        "weights multiplied with": 1500,
        "of these in layers": 1000,
        "of these kept": 100,
    }
    assert [bar.tip for bar in bars(figure).values()] == ["2,000", "1,500", "1,000", "100"]
    assert figure.table.rows[4:] == (("embed", 300, "looked up"), ("w", 500, "odd"))
