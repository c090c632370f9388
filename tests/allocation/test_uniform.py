from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES

from .networks import cifar_resnet18, make_problem, networks


def test_densities_are_equal_on_a_real_network():
    layers = cifar_resnet18()
    total = sum(layer.size for layer in layers)
    counts = RULES["uniform"].counts(make_problem(layers, total // 20))
    for layer, count in zip(layers, counts, strict=True):
        assert abs(count - layer.size / 20) <= 1


@given(networks, st.data())
def test_counts_are_within_one_of_uniform_unless_the_floor_binds(layers, data):
    total = sum(layer.size for layer in layers)
    keep = data.draw(st.integers(len(layers), total))
    counts = RULES["uniform"].counts(make_problem(layers, keep))
    targets = [Fraction(keep * layer.size, total) for layer in layers]
    assert sum(counts) == keep
    if min(targets) >= 1:
        assert all(abs(c - t) < 1 for c, t in zip(counts, targets, strict=True))
