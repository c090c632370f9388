import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from sparsemend.solvers import ranking
from sparsemend.solvers.ranking import descending_rank, entries_by_score, entry_numbers, keep_mask

SCORES = stnp.arrays(
    "float32", stnp.array_shapes(max_dims=3, max_side=5), elements=st.integers(0, 4)
)


@given(SCORES)
def test_ranks_are_a_permutation_ties_by_index(scores):
    rank = descending_rank(torch.from_numpy(scores))
    flat = scores.ravel().tolist()
    order = sorted(range(len(flat)), key=lambda i: (-flat[i], i))
    assert rank.shape == scores.shape
    assert rank.dtype == torch.int64
    assert [rank.flatten()[i].item() for i in order] == list(range(len(flat)))


@given(SCORES, st.data())
def test_masks_are_exact_and_nested(scores, data):
    rank = descending_rank(torch.from_numpy(scores))
    low, high = sorted(data.draw(st.tuples(*[st.integers(0, scores.size)] * 2)))
    small, large = keep_mask(rank, low), keep_mask(rank, high)
    assert small.dtype == torch.bool
    assert (small.sum().item(), large.sum().item()) == (low, high)
    assert (small <= large).all()


@given(SCORES.filter(lambda scores: scores.size), st.data())
def test_entry_numbers_count_the_masks_without_a_weight(scores, data):
    rank = descending_rank(torch.from_numpy(scores))
    kept = sorted(data.draw(st.lists(st.integers(0, scores.size), max_size=6)))
    expected = sum((~keep_mask(rank, k)).int() for k in kept) + torch.zeros_like(rank)
    assert torch.equal(entry_numbers(rank, kept).long(), expected)
    assert torch.equal(entries_by_score(torch.from_numpy(scores), kept).long(), expected)


@given(
    stnp.arrays(
        "float32",
        st.integers(1, 50),
        elements=st.floats(-4, 4, width=32) | st.sampled_from((0.0, -0.0, float("inf"), 1e-45)),
    ),
    st.sampled_from((torch.float64, torch.float32, torch.float16, torch.bfloat16)),
    st.booleans(),
)
def test_every_type_and_sign_is_ranked_alike(scores, dtype, positive):
    score = torch.from_numpy(scores).to(dtype)
    score = score.abs() if positive else score
    order = torch.sort(score, descending=True, stable=True).indices
    rank = descending_rank(score)
    assert torch.equal(rank[order], torch.arange(len(order)))
    kept = [len(order) // 5, len(order) // 3, len(order) // 2]
    assert torch.equal(entries_by_score(score, kept), entry_numbers(rank, kept))


def test_entries_of_many_weights():
    """Bins of many weights, cut by several masks, and masks that end between bins."""
    weight = torch.randn(40_000, generator=torch.Generator().manual_seed(0))
    for score in (weight.abs(), (weight.abs() * 8).round(), torch.ones(500)):
        kept = [len(score) // n for n in (900, 300, 299, 100, 10, 3, 2, 1)]
        expected = entry_numbers(descending_rank(score), kept)
        assert torch.equal(entries_by_score(score, kept), expected)


@given(
    stnp.arrays("float32", stnp.array_shapes(min_dims=3, max_dims=3), elements=st.integers(0, 4)),
    st.data(),
)
def test_the_best_of_rows_are_those_that_rank_first(scores, data):
    score, kept = torch.from_numpy(scores), data.draw(st.integers(0, scores.size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_SORTED", 7)
        found = ranking.best_of_rows(score, kept)
    assert torch.equal(found, keep_mask(ranking.rank_within_rows(score), kept))
