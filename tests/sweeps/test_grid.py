from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend import SparsemendError
from sparsemend.sweeps import make_grid, read_sparsities


def test_a_range_has_both_ends_and_exact_decimals():
    found = read_sparsities("0.80:0.98:0.01")
    assert len(found) == 19
    assert [str(value) for value in found[:4]] == ["0.8", "0.81", "0.82", "0.83"]
    assert found[-1] == 0.98
    # What adding floats would give instead.
    assert 0.8 + 7 * 0.01 != 0.87
    assert 0.87 in found


@given(st.integers(0, 998), st.integers(1, 50), st.integers(0, 60))
def test_every_range_is_exact(start, step, count):
    end = start + step * count
    if end >= 1000:
        return
    text = f"{Decimal(start) / 1000}:{Decimal(end) / 1000}:{Decimal(step) / 1000}"
    expected = [float(f"{(start + step * i) / 1000:.3f}") for i in range(count + 1)]
    assert list(read_sparsities(text)) == expected


def test_numbers_texts_and_ranges_mix_and_count_once():
    assert read_sparsities(["0.9", 0.5, "0.8:0.9:0.1", 0.5]) == (0.5, 0.8, 0.9)
    assert read_sparsities(0.9) == read_sparsities("0.90") == (0.9,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a", "sparsity is neither a number nor a range: got 'a'; allowed: 0.9, or start:end:step"),
        ("0.8:0.9", "sparsity is neither a number nor a range"),
        ("0.8:0.9:0.1:1", "sparsity is neither a number nor a range"),
        ("nan", "sparsity is neither a number nor a range"),
        ("0.8:0.9:0.03", "a step that divides end - start"),
        ("0.8:0.9:0", "this range of sparsities cannot be"),
        ("0.9:0.8:0.1", "this range of sparsities cannot be"),
        ("0.9:1.0:0.1", "this range of sparsities cannot be"),
        ("-0.1:0.9:0.1", "this range of sparsities cannot be"),
        ("0:0.9:1e-9", "this range of sparsities cannot be"),
        ("0:0.9:1e-400", "this range of sparsities cannot be"),
    ],
)
def test_what_is_no_sparsity(text, message):
    with pytest.raises(SparsemendError) as caught:
        read_sparsities(text)
    assert message in str(caught.value)


def test_every_combination_is_a_cell_seed_by_seed():
    grid = make_grid([0.8, 0.9], ["erk", "rr"], ["magnitude"], ["none", "mean"], [3, 1])
    cells = grid.cells("net")
    assert len(cells) == len(set(cells)) == 16
    assert [cell.seed for cell in cells] == 8 * [3] + 8 * [1]
    assert {(c.rule, c.repair, c.sparsity) for c in cells[:8]} == {
        (rule, repair, sparsity)
        for rule in ("erk", "rr")
        for repair in ("none", "mean")
        for sparsity in (0.8, 0.9)
    }


def test_one_value_is_not_its_letters():
    grid = make_grid(0.9, "erk", "magnitude", "mean", 7)
    (cell,) = grid.cells("net")
    assert (cell.rule, cell.mask, cell.repair, cell.seed) == ("erk", "magnitude", "mean", 7)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rules": []}, "the sweep has no rules"),
        ({"sparsities": []}, "the sweep has no sparsities"),
        ({"seeds": [-1]}, "seed is out of range: got -1"),
        ({"seeds": ["0"]}, "seed is out of range: got '0'"),
    ],
)
def test_grids_that_cannot_be(values, message):
    with pytest.raises(SparsemendError, match=message):
        make_grid(**({"sparsities": 0.9} | values))
