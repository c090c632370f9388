"""Outlier Weighed Layerwise sparsity: ratios of outliers by hand, and the published densities."""

import numpy as np
import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.allocation import allocate_layers
from sparsemend.errors import SparsemendError

from .networks import make_layers, make_moments, random_weights

# Of 100 weights of size 1 so many are 1000, and so are outliers: D = 0, 0.02 and 0.08.
LARGE = (0, 2, 8)


def with_outliers(sizes=(100, 100, 100)):
    layers = make_layers([(10, size // 10) for size in sizes])
    weights = {layer.name: torch.ones(layer.shape) for layer in layers}
    for layer, count in zip(layers, LARGE, strict=True):
        weights[layer.name].view(-1)[: count * layer.size // 100] = 1000
    return layers, weights


def counts(layers, weights, sparsity, moments=None, **options):
    moments = make_moments(layers) if moments is None else moments
    found = allocate_layers(layers, weights, sparsity, "owl", moments=moments, **options)
    return list(found.values())


def test_densities_are_those_of_the_paper():
    """D in [0, 2 λ], moved so that the mean is 1 − S: 0.3 + (0, 0.04, 0.16) − 0.2 / 3."""
    layers, weights = with_outliers()
    expected = 100 * (0.3 + np.array([0, 0.04, 0.16]) - 0.2 / 3)
    np.testing.assert_allclose(counts(layers, weights, 0.7), expected, atol=1)
    wider = counts(layers, weights, 0.7, spread=0.15)
    np.testing.assert_allclose(wider, 100 * (0.3 + np.array([0, 0.075, 0.3]) - 0.125), atol=1)
    assert counts(layers, weights, 0.7, spread=0.0) == [30, 30, 30]


def test_every_layer_counts_by_its_size():
    layers, weights = with_outliers((100, 400, 100))
    found = np.array(counts(layers, weights, 0.7)) / (100, 400, 100)
    np.testing.assert_allclose(found - found[0], [0, 0.04, 0.16], atol=0.02)
    assert sum(counts(layers, weights, 0.7)) == 180


def test_an_outlier_is_one_among_scores_not_among_weights():
    """One loud input column of ten makes the same outliers as large weights on it."""
    layers = make_layers([(20, 10), (20, 10)])
    weights = {layer.name: torch.ones(layer.shape) for layer in layers}
    moments = make_moments(layers)
    moments["layer1"].column_square[0, 3] = 1e6
    found = counts(layers, weights, 0.5, moments)
    assert found == counts(layers, {**weights, "layer1": torch.ones(20, 10).index_fill(
        1, torch.tensor([3]), 1e3
    )}, 0.5)  # fmt: skip
    assert found == [84, 116]
    # A score of ten times the others' is 5.3 times the mean: no outlier for a larger M.
    moments["layer1"].column_square[0, 3] = 1e2
    assert counts(layers, weights, 0.5, moments) == [84, 116]
    assert counts(layers, weights, 0.5, moments, outlier=6) == [100, 100]


@pytest.mark.parametrize("sparsity", [0.05, 0.95, 0.985])
def test_densities_that_would_leave_the_range_stay_at_its_ends(sparsity):
    layers, weights = with_outliers()
    found = counts(layers, weights, sparsity)
    assert sum(found) == round(300 * (1 - sparsity))
    assert found == sorted(found)
    assert all(1 <= n <= 100 for n in found)


def test_groups_have_inputs_of_their_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 5))
    calibration = sm.calibrate(model, torch.randn(20, 4, 4, 4))
    allocation = sm.allocate(model, 0.6, "owl", calibration=calibration)
    assert allocation.kept == sm.allocate(model, 0.6, "uniform").kept


def test_without_what_it_needs():
    layers, weights = with_outliers()
    with pytest.raises(SparsemendError, match="rule 'owl' needs the inputs' second moments; pass"):
        allocate_layers(layers, weights, 0.5, "owl")
    moments = make_moments(layers)
    for wrong in ({"layer0": moments["layer0"]}, {**moments, "layer1": make_moments(
        make_layers([(2, 3)])
    )["layer0"]}):  # fmt: skip
        with pytest.raises(SparsemendError, match="does not have the inputs of layer 'layer1'"):
            allocate_layers(layers, weights, 0.5, "owl", moments=wrong)
    for options in ({"outlier": 0}, {"spread": -0.1}, {"spread": 1.1}):
        with pytest.raises(SparsemendError, match="of rule 'owl' is out of range"):
            counts(layers, weights, 0.5, **options)


def test_compress_calibrates_for_it_alone_and_as_a_part():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    inputs = torch.randn(40, 6)
    calibration = sm.calibrate(model, inputs)
    for rule in ("owl", "erk[last=owl]"):
        result = sm.compress(model, inputs, 0.5, rule, repair="variance")
        expected = sm.allocate(model, 0.5, rule, calibration=calibration)
        assert dict(result.allocation) == dict(expected)
        assert result.diagnosis is None


def test_half_precision_is_compared_exactly():
    layers = make_layers([(20, 10), (20, 10)])
    weights = random_weights(layers)
    half = {name: w.bfloat16() for name, w in weights.items()}
    wide = {name: w.float() for name, w in half.items()}
    assert counts(layers, half, 0.5, outlier=2) == counts(layers, wide, 0.5, outlier=2)
