import csv
import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sparsemend.files import csv_text

cells = st.none() | st.integers() | st.floats() | st.text()
tables = st.lists(st.lists(cells, min_size=2, max_size=4), max_size=5)


def read(text):
    return list(csv.reader(io.StringIO(text, newline="")))


@given(tables)
@example([["a\rb", "c\nd"], ["\r\n", "\n"]])
@example([["=1+1", "@SUM(A1)"], ["-2", "+3"], ["-cmd", "\tx"]])
def test_no_text_is_a_formula_and_numbers_are_numbers(rows):
    found = read(csv_text(rows))
    assert [len(row) for row in found] == [len(row) for row in rows]
    for row, had in zip(found, rows, strict=True):
        for cell, value in zip(row, had, strict=True):
            if isinstance(value, str):
                assert cell.removeprefix("'") == value.removeprefix("'")
                if cell.startswith(("=", "+", "-", "@", "\t", "\r")):
                    float(cell)
            elif value is None:
                assert cell == ""
            else:
                assert cell == str(value)


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "-1+2", "=", "-", "+1 "])
def test_an_apostrophe_makes_text_of_a_formula(text):
    assert read(csv_text([[text, 1]])) == [[f"'{text}", "1"]]


@pytest.mark.parametrize("text", ["conv=1", "a-b", "layer1.0", "", "'=1", "−0.5", "-0.5", "+1e-9"])
def test_other_text_is_as_it_was(text):
    assert read(csv_text([[text, -0.5]])) == [[text, "-0.5"]]


def test_line_ends():
    assert csv_text([["a", "b"], [1, None]]) == "a,b\n1,\n"
    assert csv_text([["a", "b"]], newline="\r\n") == "a,b\r\n"
