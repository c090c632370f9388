"""Factors exist or there is an error: no number makes it go on forever."""

import math

import pytest
import torch

from sparsemend.finite import NotFiniteError
from sparsemend.solvers import ShiftedInverses, choose_support, solve_on_support
from sparsemend.solvers.cholesky import factorise

DTYPES = (torch.float32, torch.float64)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_definite_matrix_is_factorised_as_it_is(dtype):
    x = torch.randn(2, 5, 9, dtype=dtype)
    system = x @ x.mT
    factor = factorise(system.clone(), 1.0, 2)
    assert torch.equal(factor, torch.linalg.cholesky(system))


@pytest.mark.parametrize("size", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("growth", [2, 10])
@pytest.mark.parametrize("dtype", DTYPES)
def test_an_indefinite_matrix_gets_more_on_its_diagonal(dtype, growth, size):
    system = -size * torch.eye(4, dtype=dtype).unsqueeze(0)
    factor = factorise(system.clone(), 1e-9, growth)
    found = factor @ factor.mT - system
    shift = found.diagonal(dim1=1, dim2=2)
    assert (shift > 0.9 * size).all()
    assert (shift <= 1.2 * growth * size + 1e-8).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [(0, 0, 0), (0, 1, 0), (0, 3, 3)])
def test_moments_that_are_not_finite_are_an_error(place, value):
    system = torch.eye(4).unsqueeze(0)
    if value == math.inf and place[1] == place[2]:
        value = math.nan  # an infinite variance has a factor, and the weight 0
    system[place] = value
    target, kept = torch.ones(1, 2, 4), torch.ones(1, 2, 4, dtype=torch.bool)
    with pytest.raises(NotFiniteError, match="moments are not finite"):
        factorise(system.clone(), 1e-3, 2)
    with pytest.raises(NotFiniteError, match="moments are not finite"):
        solve_on_support(system, target, kept, 1e-3)
    with pytest.raises(NotFiniteError, match="moments are not finite"):
        choose_support(ShiftedInverses(system), target, target, 3, 1e-3)
