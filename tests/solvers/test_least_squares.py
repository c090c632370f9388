"""Least squares on every row's own columns, against NumPy row by row."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.solvers import least_squares, solve_on_support
from sparsemend.solvers.least_squares import conjugate_gradient, factorised_supports, nested_gains


def problem(groups, rows, width, positions, seed):
    """Inputs, targets and their moments; columns have unit variance."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(groups, positions, width, generator=generator, dtype=torch.float64)
    mix = torch.randn(groups, width, width, generator=generator, dtype=torch.float64) / width**0.5
    x = x + x @ mix
    x = x - x.mean(dim=1, keepdim=True)
    x = x / x.square().mean(dim=1, keepdim=True).sqrt()
    z = x @ torch.randn(groups, width, rows, generator=generator, dtype=torch.float64)
    z = z + torch.randn(z.shape, generator=generator, dtype=torch.float64)
    return x, z, x.mT @ x / positions, z.mT @ x / positions


def random_mask(groups, rows, width, seed):
    """Rows of every density, among them an empty and a full one."""
    generator = torch.Generator().manual_seed(seed)
    density = torch.rand(groups, rows, 1, generator=generator)
    mask = torch.rand(groups, rows, width, generator=generator) < density
    mask[0, 0], mask[-1, -1] = False, True
    return mask


def by_rows(x, z, mask, ridge):
    """The stacked least-squares problem [x; sqrt(n ridge) I] of every row alone."""
    groups, rows, _ = mask.shape
    solution = np.zeros(mask.shape)
    for g in range(groups):
        positions = x.shape[1]
        for r in range(rows):
            kept = mask[g, r].numpy()
            columns = x[g].numpy()[:, kept]
            stacked = np.vstack([columns, np.sqrt(positions * ridge) * np.eye(kept.sum())])
            target = np.concatenate([z[g, :, r].numpy(), np.zeros(kept.sum())])
            if kept.any():
                solution[g, r, kept] = np.linalg.lstsq(stacked, target, rcond=None)[0]
    return torch.from_numpy(solution)


shapes = st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(1, 24))


@settings(max_examples=40)
@given(shapes, st.integers(0, 10_000), st.sampled_from([0.0, 1e-3, 0.3]))
def test_equals_least_squares_row_by_row(shape, seed, ridge):
    x, z, covariance, cross = problem(*shape, positions=60, seed=seed)
    mask = random_mask(*shape, seed)
    expected = by_rows(x, z, mask, ridge)
    got = solve_on_support(covariance, cross, mask, ridge)
    assert got.dtype == torch.float64
    assert not got[~mask].any()
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=30)
@given(shapes, st.integers(0, 10_000))
def test_conjugate_gradients_find_the_same(shape, seed):
    x, z, covariance, cross = problem(*shape, positions=60, seed=seed)
    mask = random_mask(*shape, seed)
    expected = by_rows(x, z, mask, 1e-2)
    got = conjugate_gradient(covariance, cross, mask, 1e-2)
    assert not got[~mask].any()
    torch.testing.assert_close(got, expected, rtol=0, atol=2e-3)
    left = ((got @ covariance + 1e-2 * got - cross) * mask).norm(dim=2)
    assert (left <= 1e-5 * (cross * mask).norm(dim=2)).all()


def test_the_cheaper_way_is_taken_and_the_ways_agree(monkeypatch):
    _, _, covariance, cross = problem(1, 4, 420, positions=2000, seed=0)
    calls = []

    def spy(*arguments):
        calls.append(arguments)
        return conjugate_gradient(*arguments)

    monkeypatch.setattr(least_squares, "conjugate_gradient", spy)
    sparse, full = torch.zeros(2, 1, 4, 420, dtype=torch.bool)
    sparse[..., ::20], full[:] = True, True
    solve_on_support(covariance, cross, sparse, 1e-3)
    assert not calls
    iterated = solve_on_support(covariance, cross, full, 1e-3)
    assert len(calls) == 1
    # From a start fewer steps are needed, which pays at sparser supports, and float32 will do.
    half = full.clone()
    half[..., ::2] = False
    near = solve_on_support(covariance, cross, half, 1e-3)
    again = solve_on_support(covariance, cross, half, 1e-3, near * 1.01)
    assert [arguments[0].dtype for arguments in calls[1:]] == [torch.float32]
    assert again.dtype == torch.float64
    torch.testing.assert_close(again, near, rtol=0, atol=1e-3)
    # Rows that it does not solve in time are factorised, the others stay.
    monkeypatch.setattr(least_squares, "_CG_PATIENCE", 0)
    far = near.clone()
    far[0, 1] = 0
    mended = solve_on_support(covariance, cross, half, 1e-3, far)
    assert len(calls) == 3
    assert torch.equal(mended[0, 1], least_squares._factorise(covariance, cross, half, 1e-3)[0, 1])
    torch.testing.assert_close(mended, near, rtol=1e-4, atol=1e-4)
    exact = least_squares._factorise(covariance, cross, full, 1e-3)
    torch.testing.assert_close(iterated, exact, rtol=0, atol=1e-3)
    systems = [w @ covariance + 1e-3 * w - cross for w in (iterated, exact)]
    norms = [float(left.norm() / cross.norm()) for left in systems]
    assert norms[0] < 1e-5
    assert norms[1] < 1e-9


def test_batches_of_rows_do_not_matter(monkeypatch):
    _, _, covariance, cross = problem(2, 20, 16, positions=60, seed=3)
    mask = random_mask(2, 20, 16, 3)
    whole = solve_on_support(covariance, cross, mask, 1e-3)
    monkeypatch.setattr(least_squares, "_GATHER_ELEMENTS", 1)
    torch.testing.assert_close(solve_on_support(covariance, cross, mask, 1e-3), whole)


@pytest.mark.parametrize("solve", [solve_on_support, conjugate_gradient])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("ridge", [0.0, 1e-9, 1e-3])
def test_singular_moments_give_finite_values(solve, dtype, ridge):
    x, z, _, _ = problem(1, 5, 8, positions=40, seed=1)
    x[..., 3] = x[..., 2]  # a copy
    x[..., 5] = 0  # dead
    x[..., 6] = x[..., 0] - x[..., 1]
    covariance, cross = (x.mT @ x / 40).to(dtype), (z.mT @ x / 40).to(dtype)
    mask = torch.ones(1, 5, 8, dtype=torch.bool)
    got = solve(covariance, cross, mask, ridge)
    assert got.isfinite().all()
    assert got.dtype == dtype
    left = (z - x @ got.mT.double()).square().mean(dim=1)
    best = (z - x @ by_rows(x, z, mask, 0.0).mT).square().mean(dim=1)
    assert (left <= best + 0.02 * z.square().mean(dim=1)).all()


def test_no_moments_at_all_give_zeros():
    zeros = torch.zeros(2, 3, 4)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    assert not solve_on_support(torch.zeros(2, 4, 4), zeros, mask, 1e-3).any()
    assert not solve_on_support(torch.eye(4).expand(2, 4, 4), zeros, ~mask, 1e-3).any()


def test_the_arguments_stay_as_they_are():
    _, _, covariance, cross = problem(2, 5, 8, positions=40, seed=2)
    mask = random_mask(2, 5, 8, 2)
    before = [t.clone() for t in (covariance, cross, mask)]
    first = solve_on_support(covariance, cross, mask, 1e-3)
    assert all(map(torch.equal, before, (covariance, cross, mask)))
    assert torch.equal(first, solve_on_support(covariance, cross, mask, 1e-3))


@settings(max_examples=25)
@given(shapes, st.integers(1, 6), st.integers(0, 10_000))
def test_one_factorisation_gives_the_gains_on_nested_supports(shape, supports, seed):
    _, _, covariance, cross = problem(*shape, positions=60, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    entries = torch.randint(supports + 2, shape, generator=generator)
    gains = nested_gains(covariance, cross, entries, supports, 1e-2)
    for number in range(supports):
        found = solve_on_support(covariance, cross, entries <= number, 1e-2)
        torch.testing.assert_close(gains[number], (found * cross).sum(dim=2))
    assert (gains.diff(dim=0) >= 0).all()


def test_few_supports_share_a_factorisation_where_that_costs_more_than_iterating(monkeypatch):
    entries = torch.arange(12).reshape(1, 2, 6)
    monkeypatch.setattr(least_squares, "_iterating_cost", lambda *_: 5e4)
    assert factorised_supports(entries, 12) == 12
    monkeypatch.setattr(least_squares, "_iterating_cost", lambda *_: 5e2)
    assert 0 < factorised_supports(entries, 12) < 12
    monkeypatch.setattr(least_squares, "_iterating_cost", lambda *_: 0)
    assert factorised_supports(entries, 12) == 0
