"""Cross moments against the product of targets and unfolded inputs."""

from unittest import mock

import pytest
import torch
from hypothesis import assume, given, settings
from tests.layers.kinds.modules import convolutions, linears, transposed_convolutions
from torch import nn

from sparsemend.calibration.cross import cross_sum
from sparsemend.execution import layout
from sparsemend.layers import channel_last, discover, unfold


def by_hand(module, layer, x, targets):
    """targetᵀ · unfolded, [groups, rows, d]."""
    columns = torch.cat(list(unfold(module, x)), dim=1)
    rows = channel_last(module, targets).unflatten(1, (layer.groups, -1)).transpose(0, 1)
    return rows.mT @ columns


def assert_is_the_product(module, x):
    try:
        module(x)
    except RuntimeError:  # more padding than output
        assume(False)
    layer = discover(nn.Sequential(module))[0]
    with torch.no_grad():
        targets = torch.randn_like(module(x))
        got = cross_sum(module, layer, x, targets)
    assert got.dtype == torch.float64
    expected = by_hand(module, layer, x, targets)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@settings(max_examples=80)
@given(convolutions())
def test_convolutions(case):
    assert_is_the_product(*case)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@settings(max_examples=60)
@given(convolutions() | transposed_convolutions())
def test_wide_convolutions_of_few_positions(case):
    with mock.patch.object(layout, "CHANNELS_LAST_FROM", 1):
        assert_is_the_product(*case)


@settings(max_examples=60)
@given(transposed_convolutions())
def test_transposed_convolutions(case):
    assert_is_the_product(*case)


@settings(max_examples=30)
@given(linears())
def test_linear_layers(case):
    assert_is_the_product(*case)


@pytest.mark.parametrize("module", [nn.Conv2d(4, 6, 3, groups=2), nn.Linear(6, 5)])
def test_half_precision_is_summed_in_single(module):
    module, x = module.bfloat16(), torch.randn(3, 4, 6, 6).bfloat16()
    layer = discover(nn.Sequential(module))[0]
    with torch.no_grad():
        targets = module(x)
        got = cross_sum(module, layer, x, targets.float())
    assert got.dtype == torch.float32
    exact = by_hand(module, layer, x.double(), targets.double())
    torch.testing.assert_close(got.double(), exact, rtol=1e-4, atol=1e-3)
