import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES

from .networks import flat_layers, make_problem

global_magnitude = RULES["global"].counts


def counts_by_sorting(weights, keep):
    order = [(-abs(float(w)), i, j) for i, layer in enumerate(weights) for j, w in enumerate(layer)]
    kept = sorted(order)[:keep]
    return tuple(sum(i == layer for _, layer, _ in kept) for i in range(len(weights)))


weight_lists = st.lists(
    st.lists(
        st.one_of(st.integers(-3, 3).map(float), st.floats(-2, 2, width=32)),
        min_size=1,
        max_size=30,
    ).map(lambda values: torch.tensor(values, dtype=torch.float32)),
    min_size=1,
    max_size=5,
)


@given(weight_lists, st.data())
def test_equals_a_sort_with_ties_where_no_layer_is_emptied(weights, data):
    layers, named = flat_layers(weights)
    keep = data.draw(st.integers(len(layers), sum(map(len, weights))))
    expected = counts_by_sorting(weights, keep)
    counts = global_magnitude(make_problem(layers, keep, named))
    assert sum(counts) == keep
    if min(expected) >= 1:
        assert counts == expected
    else:
        # The floor costs the others what it gives, and nobody gains otherwise.
        assert all(c == 1 if e == 0 else 1 <= c <= e for c, e in zip(counts, expected, strict=True))


@given(weight_lists, st.data())
def test_counts_grow_with_the_budget(weights, data):
    layers, named = flat_layers(weights)
    total = sum(map(len, weights))
    keep = data.draw(st.integers(len(layers), total))
    more = data.draw(st.integers(keep, total))
    smaller = global_magnitude(make_problem(layers, keep, named))
    larger = global_magnitude(make_problem(layers, more, named))
    assert all(a <= b for a, b in zip(smaller, larger, strict=True))


def test_ties_go_to_the_earlier_layer():
    layers, named = flat_layers([torch.ones(4), -torch.ones(4), torch.ones(4)])
    assert global_magnitude(make_problem(layers, 6, named)) == (4, 1, 1)
    assert global_magnitude(make_problem(layers, 7, named)) == (4, 2, 1)


def test_a_layer_of_small_weights_keeps_one():
    layers, named = flat_layers([torch.arange(1.0, 9.0), torch.full((8,), 1e-6), torch.zeros(8)])
    assert global_magnitude(make_problem(layers, 6, named)) == (4, 1, 1)


def test_half_precision_counts_as_float32():
    weights = [torch.randn(64, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    types = (torch.half, torch.bfloat16, torch.half)
    layers, named = flat_layers([w.to(t) for w, t in zip(weights, types, strict=True)])
    wide = {name: w.double() for name, w in named.items()}
    assert global_magnitude(make_problem(layers, 30, named)) == global_magnitude(
        make_problem(layers, 30, wide)
    )
