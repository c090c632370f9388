from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsemend.allocation import RULES, allocate_layers
from sparsemend.allocation.erk import erk_prior

from .networks import cifar_resnet18, make_layer, make_problem, networks

# Density of the projections of stages 2, 3 and 4, the classifier and the last 3×3 layer in a
# CIFAR ResNet-18 with 100 classes.
ORACLE = {
    0.90: (1, 1, 0.745, 1, 0.055),
    0.94: (1, 0.858, 0.428, 0.871, 0.032),
    0.95: (1, 0.713, 0.356, 0.724, 0.026),
    0.955: (1, 0.640, 0.319, 0.650, 0.024),
}


@pytest.mark.parametrize("sparsity", ORACLE)
def test_resnet18_oracle(sparsity):
    densities = allocate_layers(cifar_resnet18(), {}, sparsity, "erk").densities
    names = [f"layer{stage}.0.downsample.0" for stage in (2, 3, 4)] + ["fc", "layer4.1.conv2"]
    assert [densities[name] for name in names] == pytest.approx(ORACLE[sparsity], abs=0.002)
    dense = {name for name, density in densities.items() if density == 1}
    expected = {"conv1", "layer2.0.downsample.0"}
    assert dense == expected | ({"layer3.0.downsample.0", "fc"} if sparsity == 0.9 else set())


def test_prior_is_the_published_one():
    assert erk_prior(make_layer("conv", (8, 4, 3, 3), 0)) == Fraction(8 + 4 + 3 + 3, 8 * 4 * 9)
    assert erk_prior(make_layer("fc", (10, 6), 0)) == Fraction(16, 60)
    # A depthwise convolution counts by the shape of its own weight.
    assert erk_prior(make_layer("dw", (8, 1, 3, 3), 0, groups=8)) == Fraction(15, 72)


@given(networks, st.data())
def test_densities_are_proportional_to_the_prior_where_not_capped(layers, data):
    keep = data.draw(st.integers(len(layers), sum(layer.size for layer in layers)))
    counts = RULES["erk"].counts(make_problem(layers, keep))
    assert sum(counts) == keep
    # Target counts of uncapped layers are f · (sum of dimensions), f common: each rounded
    # count gives an interval for f, and all intervals must meet.
    inside = [(c, sum(s.shape)) for c, s in zip(counts, layers, strict=True) if 1 < c < s.size]
    if inside:
        low = max(Fraction(c - 1, dimensions) for c, dimensions in inside)
        high = min(Fraction(c + 1, dimensions) for c, dimensions in inside)
        assert low < high
