"""Nested statistics against one dense product per mask."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.calibration.test_offset_blocks import convolutions
from torch import nn

from sparsemend.calibration import HeldInputs, InputMoments, calibrate
from sparsemend.damage import output_statistics
from sparsemend.damage.nested import nested_statistics
from sparsemend.layers import discover, unfold, weight_matrix
from sparsemend.masks import MaskProblem
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.solvers.ranking import descending_rank, keep_mask

FIELDS = ("dense_mean", "dense_variance", "pruned_variance", "error_mean", "error_variance")


def summed(layer, module, batches):
    """Moments in float64 from the unfolded inputs."""
    moments = InputMoments.empty(layer.groups, layer.fan_in, torch.device("cpu"))
    for x in batches:
        for part in unfold(module, x.double()):
            moments.update(part)
    return moments


def entries(dense, kept):
    return MAGNITUDE.entries(MaskProblem(dense), kept)


def assert_nested(dense, kept, moments, expected_from, rtol):
    ranks = descending_rank(dense.abs())
    got = nested_statistics(dense, entries(dense, kept), len(kept), moments)
    masks = [keep_mask(ranks, k) for k in kept]
    dense = dense.double()
    expected = output_statistics(dense, [dense * mask for mask in masks], expected_from)
    scale = expected.dense_variance.max().item()
    # Weights that cancel leave rounding of their terms, however small the variance.
    terms = dense.abs().sum(dim=2).max().item() ** 2 * expected_from.column_square.max().item()
    scale += 1e-3 * terms
    for name in FIELDS:
        is_mean = name.endswith("mean")
        atol = rtol * (scale**0.5 + expected.dense_mean.abs().max().item() if is_mean else scale)
        torch.testing.assert_close(
            getattr(got, name), getattr(expected, name), rtol=rtol, atol=atol, msg=name
        )


@st.composite
def linear_layers(draw):
    features = draw(st.integers(1, 6))
    module = nn.Linear(features, 3)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    shape = draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    return module, torch.randn(*shape, features, generator=generator) + 1


def test_weights_that_cancel_leave_rounding_only():
    """All inputs differ by the same in all columns, and the weights of every row add up to 0."""
    module = nn.Linear(4, 3)
    dense = torch.tensor([[[0.0, 1, -2, 1], [2, -2, -1, 1], [0, -1, 1, 0]]])
    x = torch.tensor([[-0.1845, 1.2166, -0.2090, 0.4891]])
    (layer,) = discover(nn.Sequential(module), x)
    held = HeldInputs(layer, [(module, part) for part in (x, x + 1)])
    expected = summed(layer, module, (x, x + 1))
    assert_nested(dense, [5, 5, 9], InputMoments.holding(held), expected, 1e-4)


@settings(max_examples=60)
@given(convolutions(groups=True) | linear_layers(), st.data())
def test_equal_to_dense_products(case, data):
    module, x = case
    (layer,) = discover(nn.Sequential(module), x)
    kept = sorted(data.draw(st.lists(st.integers(1, layer.size), min_size=1, max_size=5)))
    dense = weight_matrix(module.weight.detach(), layer)
    if data.draw(st.booleans()):  # many ties, some of them at zero
        dense = (dense * 4).round()
    batches = [x, x[:1] + 1]
    expected = summed(layer, module, batches)
    held = HeldInputs(layer, [(module, part) for part in batches])
    assert_nested(dense, kept, InputMoments.holding(held), expected, 1e-4)
    assert_nested(dense, kept, summed(layer, module, batches), expected, 1e-4)
    double = HeldInputs(layer, [(module, part.double()) for part in batches])
    assert_nested(dense.double(), kept, InputMoments.holding(double), expected, 1e-9)
    assert_nested(dense.double(), kept, expected, expected, 1e-9)


@pytest.mark.parametrize("size", [4, 12])
def test_several_blocks_of_columns_and_images(size):
    """Held (4 × 4 maps) and summed (12 × 12) inputs of a wide layer."""
    generator = torch.Generator().manual_seed(0)
    module = nn.Conv2d(160, 12, 3, padding=1)
    x = torch.randn(70, 160, size, size, generator=generator).relu()
    moments = calibrate(nn.Sequential(module), x, progress=False).moments["0"]
    assert (moments.held is not None) == (size == 4)
    (layer,) = discover(nn.Sequential(module), x)
    dense = weight_matrix(module.weight.detach(), layer)
    kept = [layer.size // n for n in (100, 10, 3, 1)]
    assert_nested(dense, kept, moments, summed(layer, module, [x]), 1e-4)


def test_weights_that_are_zero_already_cost_nothing_when_pruned():
    generator = torch.Generator().manual_seed(1)
    module = nn.Linear(40, 4)
    with torch.no_grad():
        module.weight[module.weight.abs() < 0.1] = 0
    x = torch.randn(30, 40, generator=generator)
    (layer,) = discover(nn.Sequential(module), x)
    dense = weight_matrix(module.weight.detach(), layer)
    kept = [int((dense != 0).sum()), layer.size]
    for moments in (
        summed(layer, module, [x]),
        InputMoments.holding(HeldInputs(layer, [(module, x)])),
    ):
        found = nested_statistics(dense, entries(dense, kept), len(kept), moments)
        assert not found.error_variance.any()
        assert not found.error_mean.any()
