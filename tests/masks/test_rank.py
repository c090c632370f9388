import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from sparsemend.masks import descending_rank, keep_mask

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
