import csv
import io
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.reports.drawing.figure import Table, spread_out


def read(table):
    return list(csv.reader(io.StringIO(table.csv())))


def test_csv_holds_the_values():
    table = Table(("layer", "x"), (('a,b"c\nd', 1 / 3), ("e", math.nan), ("f", None), ("g", 7)))
    assert read(table) == [
        ["layer", "x"],
        ['a,b"c\nd', "0.333333333"],
        ["e", ""],
        ["f", ""],
        ["g", "7"],
    ]


@given(st.lists(st.tuples(st.text("ab,\"'<>;\n é"), st.floats(-1e9, 1e9)), max_size=8))
def test_csv_can_be_read_back(rows):
    head, *found = read(Table(("name", "value"), tuple(rows)))
    assert head == ["name", "value"]
    assert [name for name, _ in found] == [name for name, _ in rows]
    assert [float(v) for _, v in found] == pytest.approx([v for _, v in rows], rel=1e-8)


@given(st.lists(st.floats(0, 100), max_size=12), st.floats(0.1, 20))
def test_labels_are_spread_out_within_the_ends(wanted, gap):
    places = spread_out(wanted, gap, 0, 100)
    assert all(-1e-6 <= p <= 100 + 1e-6 for p in places)
    fits = gap if len(wanted) < 2 else min(gap, 100 / (len(wanted) - 1))
    for (a, pa), (b, pb) in zip(
        sorted(zip(wanted, places, strict=True)),
        sorted(zip(wanted, places, strict=True))[1:],
        strict=False,
    ):
        assert a <= b
        assert pb - pa >= fits - 1e-6


def test_labels_that_are_apart_stay_where_they_are():
    assert spread_out([10, 50, 30], 5, 0, 100) == [10, 50, 30]
