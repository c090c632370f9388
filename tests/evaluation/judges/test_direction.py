"""Class scores by their direction: not how sure a network is of itself."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.evaluation.judges.direction import loss


@given(st.floats(0.1, 100), st.floats(-50, 50), st.integers(0, 100))
def test_neither_scale_nor_a_shift_of_all_scores_counts(scale, shift, seed):
    torch.manual_seed(seed)
    dense, other = torch.randn(2, 5, 7).double()
    assert loss(dense, scale * dense + shift) == pytest.approx(torch.zeros(5), abs=1e-9)
    assert loss(dense, scale * other + shift) == pytest.approx(loss(dense, other), abs=1e-9)


def test_opposite_and_indifferent_scores():
    dense = torch.tensor([[1.0, 0.0, -1.0], [1.0, 0.0, -1.0]])
    sparse = torch.tensor([[-1.0, 0.0, 1.0], [0.5, -1.0, 0.5]])
    assert loss(dense, sparse).tolist() == pytest.approx([2, 1])
