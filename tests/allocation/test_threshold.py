import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import threshold


def by_sorting(scores, keep):
    """Best of each layer first, then by score, layer and index."""
    order = []
    for i, layer in enumerate(scores):
        best = max(range(len(layer)), key=lambda j, layer=layer: layer[j])
        order += [(j != best, -value, i, j) for j, value in enumerate(layer)]
    kept = sorted(order)[:keep]
    return tuple(sum(i == layer for *_, layer, _ in kept) for i in range(len(scores)))


def select(scores, keep, dtype):
    tensors = [torch.tensor(layer, dtype=dtype) for layer in scores]
    return threshold.threshold_counts(lambda i: tensors[i].clone(), [len(s) for s in scores], keep)


# Small whole numbers tie often; the floats reach over the whole range of exponents.
values = st.one_of(
    st.integers(0, 4).map(float),
    st.floats(0, 2.0**127, width=32),
    st.floats(0, 2.0**-100, width=32),
)
layers = st.lists(st.lists(values, min_size=1, max_size=30), min_size=1, max_size=5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("limit", "digit", "chunk"), [(2**22, 16, 2**22), (3, 5, 4), (0, 16, 7)])
@given(data=st.data())
def test_equals_sorting(dtype, limit, digit, chunk, data):
    scores = data.draw(layers)
    keep = data.draw(st.integers(len(scores), sum(map(len, scores))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(threshold, "SORT_LIMIT", limit)
        patch.setattr(threshold, "DIGIT_BITS", digit)
        patch.setattr(threshold, "CHUNK", chunk)
        assert select(scores, keep, dtype) == by_sorting(scores, keep)


def test_more_scores_than_float32_can_count():
    # 2^24 + 3 scores, where quantile routines stop and float32 counters stick.
    size = 2**24
    big = torch.ones(size)
    big[:5] = 2.0
    small = torch.tensor([0.5, 3.0, 1.0])
    tensors = [big, small]
    counts = threshold.threshold_counts(lambda i: tensors[i].clone(), [size, 3], size + 1)
    assert counts == (size, 1)
    counts = threshold.threshold_counts(lambda i: tensors[i].clone(), [size, 3], 7)
    assert counts == (6, 1)
