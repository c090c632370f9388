import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES
from sparsemend.allocation.lamp import lamp_scores, running_sums

from .networks import flat_layers, make_problem

lamp = RULES["lamp"].counts


def exact_scores(weights):
    squares = [Fraction(float(w)) ** 2 for w in weights]
    suffix = [sum(v for v in squares if v >= u) for u in squares]
    return [u / total if total else Fraction(0) for u, total in zip(squares, suffix, strict=True)]


def float64_scores(weights):
    """Brute force, each sum taken on its own and correctly rounded."""
    squares = [float(w) ** 2 for w in weights]
    suffix = [math.fsum(v for v in squares if v >= u) for u in squares]
    return [u / total if total else 0.0 for u, total in zip(squares, suffix, strict=True)]


def counts_by_sorting(scores, keep):
    """The best of each layer, then by score, layer and index."""
    order = []
    for i, layer in enumerate(scores):
        best = layer.index(max(layer))
        order += [(j != best, -value, i, j) for j, value in enumerate(layer)]
    kept = sorted(order)[:keep]
    return tuple(sum(i == layer for *_, layer, _ in kept) for i in range(len(scores)))


# Whole numbers tie within and between layers, and every sum of their squares is exact.
whole = st.lists(
    st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=25), min_size=1, max_size=5
)


@given(whole, st.data())
def test_equals_exact_arithmetic_with_ties(weights, data):
    tensors = [torch.tensor(w) for w in weights]
    layers, named = flat_layers(tensors)
    keep = data.draw(st.integers(len(layers), sum(map(len, weights))))
    expected = counts_by_sorting([exact_scores(w) for w in weights], keep)
    assert lamp(make_problem(layers, keep, named)) == expected


def test_counts_are_the_same_whether_scores_are_held_or_made_anew(monkeypatch):
    layers, named = flat_layers([torch.arange(1.0, 9.0), torch.arange(-4.0, 8.0)])
    held = [lamp(make_problem(layers, keep, named)) for keep in range(2, 21)]
    monkeypatch.setattr("sparsemend.allocation.lamp._HELD", 0)
    assert [lamp(make_problem(layers, keep, named)) for keep in range(2, 21)] == held


@pytest.mark.parametrize("size", [1, 2047, 2048, 2049, 5000])
def test_running_sums_of_accelerators_are_those_of_the_cpu(size):
    terms = torch.arange(1.0, size + 1, dtype=torch.float64)  # all sums are exact

    class Accelerated(torch.Tensor):
        device = torch.device("cuda")

    found = running_sums(terms.as_subclass(Accelerated))
    assert torch.equal(torch.Tensor(found), terms.cumsum(0))


@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 60), min_size=1, max_size=4), st.data())
def test_equals_float64_brute_force(seed, sizes, data):
    generator = torch.Generator().manual_seed(seed)
    tensors = [torch.randn(n, generator=generator) * 10.0 ** (i - 2) for i, n in enumerate(sizes)]
    layers, named = flat_layers(tensors)
    keep = data.draw(st.integers(len(layers), sum(sizes)))
    expected = counts_by_sorting([float64_scores(w) for w in tensors], keep)
    assert lamp(make_problem(layers, keep, named)) == expected


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_scores_equal_brute_force(weights):
    magnitudes = torch.tensor(weights).abs().sort(descending=True).values
    expected = float64_scores(magnitudes)
    assert lamp_scores(magnitudes).tolist() == pytest.approx(expected, rel=1e-13, abs=1e-300)


def test_nothing_cancels_over_a_wide_range():
    # total − cumsum in float32 would be 0 or negative for the large end.
    magnitudes = torch.tensor([2e3, 1e3] + [1e-4] * 100_000)
    scores = lamp_scores(magnitudes)
    assert scores[0] == 1.0
    assert scores[1] == pytest.approx(0.2, rel=1e-12)
    assert (scores[2:] == scores[2]).all()
    assert scores[2] > 0


def test_scores_do_not_depend_on_a_layers_scale():
    weights = [torch.randn(200, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    layers, named = flat_layers(weights)
    scaled = {name: w * 2.0 ** (4 * i) for i, (name, w) in enumerate(named.items())}
    assert lamp(make_problem(layers, 60, named)) == lamp(make_problem(layers, 60, scaled))


def test_a_layer_of_zeros_keeps_one():
    layers, named = flat_layers([torch.zeros(10), torch.arange(1.0, 11.0)])
    assert lamp(make_problem(layers, 5, named)) == (1, 4)


def test_counts_grow_with_the_budget():
    weights = [torch.randn(50, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    layers, named = flat_layers(weights)
    counts = [lamp(make_problem(layers, keep, named)) for keep in range(4, 201)]
    for smaller, larger in itertools.pairwise(counts):
        assert all(a <= b for a, b in zip(smaller, larger, strict=True))
