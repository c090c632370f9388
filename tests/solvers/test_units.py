"""Units are powers of two that bring numbers to where float32 can square them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.solvers import solve_on_support
from sparsemend.solvers.least_squares import conjugate_gradient
from sparsemend.solvers.units import unit_of

from .test_least_squares import problem


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), max_size=5))
def test_units(values):
    x = torch.tensor(values, dtype=torch.float32)
    unit = unit_of(x)
    assert math.frexp(unit)[0] == 0.5
    if x.any() and x.abs().max() >= 2.0**-126:
        largest = float((x.double() / unit).abs().max())
        assert 2.0**-32 <= largest < 2.0**33


@pytest.mark.parametrize("values", [[], [0.0], [math.inf], [math.nan, 1e30]])
def test_no_unit(values):
    assert unit_of(torch.tensor(values)) == 1.0


@pytest.mark.parametrize("exponent", [-70, 70])
def test_least_squares_in_any_unit(exponent, monkeypatch):
    monkeypatch.setattr("sparsemend.solvers.least_squares._iterating_cost", lambda *_: -1.0)
    _, _, covariance, cross = (t.float() for t in problem(2, 3, 4, positions=40, seed=0))
    mask, unit = torch.rand(cross.shape) < 0.7, 2.0**exponent
    expected = solve_on_support(covariance, cross, mask, 1e-3)
    assert torch.equal(expected, conjugate_gradient(covariance, cross, mask, 1e-3))
    assert torch.equal(solve_on_support(covariance, cross * unit, mask, 1e-3) / unit, expected)
