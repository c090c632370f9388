"""Exact counts, obvious choices and repeatability of the operator splitting."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.solvers import (
    FURTHER,
    ROUGH,
    THOROUGH,
    Schedule,
    ShiftedInverses,
    Splitting,
    choose_support,
    largest_entries,
    nested_supports,
    solve_on_support,
    splitting,
)

from .test_least_squares import problem


@settings(max_examples=100)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=40), st.data())
def test_largest_entries_are_exact_and_ties_go_by_index(values, data):
    kept = data.draw(st.integers(0, len(values)))
    order = sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))
    mask = largest_entries(torch.tensor(values, dtype=torch.float32), kept)
    assert mask.dtype == torch.bool
    assert mask.nonzero().flatten().tolist() == sorted(order[:kept])


def test_largest_entries_keep_the_shape():
    values = torch.arange(24.0).reshape(2, 3, 4)
    mask = largest_entries(values, 5)
    assert mask.shape == values.shape
    assert int(mask.sum()) == 5
    assert mask[1, 2].all()
    assert largest_entries(values, 24).all()
    assert largest_entries(values, 99).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_count_is_exact(dtype):
    _, _, covariance, cross = (t.to(dtype) for t in problem(2, 3, 4, positions=40, seed=0))
    start = torch.linalg.solve(covariance, cross.mT).mT
    for kept in range(25):
        mask = choose_support(ShiftedInverses(covariance), cross, start, kept, 1e-2)
        assert mask.shape == cross.shape
        assert mask.dtype == torch.bool
        assert int(mask.sum()) == kept


@settings(max_examples=25)
@given(st.integers(0, 10_000), st.integers(1, 29))
def test_orthogonal_columns_leave_no_choice(seed, kept):
    generator = torch.Generator().manual_seed(seed)
    # Far enough apart that no rounding can swap them.
    weights = (1.3 ** torch.randperm(30, generator=generator)).double().reshape(1, 5, 6)
    signs = torch.randint(0, 2, weights.shape, generator=generator) * 2 - 1
    covariance, target = torch.eye(6, dtype=torch.float64).unsqueeze(0), weights * signs
    mask = choose_support(ShiftedInverses(covariance), target, target, kept, 1e-3)
    assert torch.equal(mask, largest_entries(target, kept))


@settings(max_examples=20)
@given(st.integers(0, 12), st.floats(0.5, 2))
def test_equal_weights_are_counted_exactly_and_chosen_alike(kept, size):
    target, covariance = torch.full((1, 3, 4), size), torch.eye(4).unsqueeze(0)
    masks = [
        choose_support(ShiftedInverses(covariance), target, target, kept, 1e-3) for _ in range(2)
    ]
    assert int(masks[0].sum()) == kept
    assert torch.equal(*masks)


def error(covariance, cross, mask):
    """Residual variance up to a constant."""
    w = solve_on_support(covariance, cross, mask, 1e-9)
    return float(((w @ covariance) * w - 2 * cross * w).sum())


def test_beats_magnitude_and_comes_close_to_the_best_of_all():
    for seed in range(5):
        _, _, covariance, cross = problem(1, 2, 5, positions=200, seed=seed)
        dense = torch.linalg.solve(covariance, cross.mT).mT
        chosen = error(
            covariance, cross, choose_support(ShiftedInverses(covariance), cross, dense, 4, 1e-3)
        )
        naive = error(covariance, cross, largest_entries(dense, 4))
        best, nothing = 0.0, 0.0
        for support in itertools.combinations(range(10), 4):
            mask = torch.zeros(10, dtype=torch.bool)
            mask[list(support)] = True
            best = min(best, error(covariance, cross, mask.reshape(1, 2, 5)))
        assert best <= chosen <= naive + 1e-9
        assert chosen - best <= 0.1 * (nothing - best)


def test_groups_compete_but_do_not_mix():
    _, _, covariance, cross = problem(2, 3, 6, positions=80, seed=4)
    cross[1] *= 1e-6
    mask = choose_support(ShiftedInverses(covariance), cross, cross, 10, 1e-3)
    assert int(mask[0].sum()) == 10
    alone = choose_support(
        ShiftedInverses(covariance[:1]), cross[:1], cross[:1], 10, 1e-3, Schedule(shrink=1)
    )
    assert int(alone.sum()) == 10


def test_a_further_choice_goes_on_from_the_one_before():
    _, _, covariance, cross = problem(1, 4, 12, positions=60, seed=2)
    inverses, ended = ShiftedInverses(covariance), Splitting()
    first = choose_support(inverses, cross, cross, 9, 1e-3, ROUGH, splitting=ended)
    left = ended.sparse.clone()
    assert int(torch.count_nonzero(left)) == 9
    again = choose_support(inverses, cross, cross, 9, 1e-3, FURTHER, splitting=ended)
    assert not torch.equal(ended.sparse, left)  # it has gone on
    # On the same targets, few weights change: what the first choice found is not forgotten.
    assert int((first & again).sum()) >= 7
    alone = choose_support(inverses, cross, cross, 9, 1e-3, FURTHER)
    anew = choose_support(inverses, cross, cross, 9, 1e-3, ROUGH, splitting=ended)
    assert torch.equal(anew, first)
    assert not torch.equal(alone, again)


@pytest.mark.parametrize("schedule", [THOROUGH, Schedule(iterations=1), Schedule(shrink=1)])
def test_singular_moments_and_repeatability(schedule):
    x, z, _, _ = problem(1, 4, 8, positions=40, seed=1)
    x[..., 3], x[..., 5] = x[..., 2], 0
    covariance, cross = (x.mT @ x / 40).float(), (z.mT @ x / 40).float()
    before = [covariance.clone(), cross.clone()]
    masks = [
        choose_support(ShiftedInverses(covariance), cross, cross, 9, 0.0, schedule)
        for _ in range(2)
    ]
    assert torch.equal(*masks)
    assert int(masks[0].sum()) == 9
    assert not masks[0][..., 5].any()
    assert all(map(torch.equal, before, (covariance, cross)))


def test_nothing_to_choose_by_still_gives_the_count():
    zeros = torch.zeros(1, 3, 4)
    assert (
        int(choose_support(ShiftedInverses(torch.zeros(1, 4, 4)), zeros, zeros, 7, 1e-3).sum()) == 7
    )


@pytest.mark.parametrize("room", [0, 1 << 20])
def test_choices_on_the_same_inputs_share_what_there_is_room_for(monkeypatch, room):
    _, _, covariance, cross = problem(2, 4, 5, positions=40, seed=3)
    factorised = []
    alone = [choose_support(ShiftedInverses(covariance), cross, cross, k, 1e-3) for k in (7, 19)]
    factorise = splitting.factorise
    monkeypatch.setattr(splitting, "_HELD_BYTES", room)
    monkeypatch.setattr(
        splitting, "factorise", lambda *a, **k: factorised.append(a[1]) or factorise(*a, **k)
    )
    inverses = ShiftedInverses(covariance)
    shared = [choose_support(inverses, cross, cross, kept, 1e-3) for kept in (7, 19)]
    assert all(map(torch.equal, alone, shared))
    # To settle, a penalty comes back that has been before.
    shifts = len(set(factorised))
    assert len(factorised) == (shifts if room else 2 * (shifts + 1))


@settings(max_examples=12)
@given(st.integers(0, 9999), st.lists(st.integers(0, 24), min_size=1, max_size=6), st.booleans())
def test_nested_supports_have_exact_counts_and_hold_each_other(seed, counts, singular):
    _, _, covariance, cross = problem(2, 3, 4, positions=30, seed=seed)
    if singular:  # weights of value zero, between which only their place decides
        covariance[:, 1], covariance[:, :, 1], cross[:, :, 1] = 0, 0, 0
        cross[0, 0] = 0
    kept = sorted(counts)
    entries = nested_supports(ShiftedInverses(covariance), cross, cross, kept, 1e-3)
    # What enters with a number is in all supports from there on, so that these are nested.
    assert [int((entries <= number).sum()) for number in range(len(kept))] == kept
    again = nested_supports(ShiftedInverses(covariance), cross, cross, kept, 1e-3)
    assert torch.equal(again, entries)


def test_nested_supports_of_orthogonal_columns_are_the_largest_entries():
    generator = torch.Generator().manual_seed(0)
    target = (1.3 ** torch.randperm(30, generator=generator)).double().reshape(1, 5, 6)
    kept = [1, 2, 7, 8, 20, 30]
    inverses = ShiftedInverses(torch.eye(6, dtype=torch.float64).unsqueeze(0))
    entries = nested_supports(inverses, target, target, kept, 1e-3)
    for number, count in enumerate(kept):
        assert torch.equal(entries <= number, largest_entries(target, count))


def test_nested_supports_are_nearly_as_good_as_those_chosen_for_each_count():
    kept = [6, 12, 24, 48]
    nested, each, naive = torch.zeros(3, len(kept))
    for seed in range(5):
        _, _, covariance, cross = problem(1, 8, 16, positions=400, seed=seed)
        inverses, dense = ShiftedInverses(covariance), torch.linalg.solve(covariance, cross.mT).mT
        full = error(covariance, cross, torch.ones_like(cross, dtype=torch.bool))
        entries = nested_supports(inverses, cross, dense, kept, 1e-3)
        for number, count in enumerate(kept):
            chosen = choose_support(inverses, cross, dense, count, 1e-3)
            nested[number] += error(covariance, cross, entries <= number) - full
            each[number] += error(covariance, cross, chosen) - full
            naive[number] += error(covariance, cross, largest_entries(dense, count)) - full
    assert (nested < 1.35 * each).all()
    assert (nested < naive).all()
