import pytest
import torch
from hypothesis import given, settings
from torch import nn

from sparsemend.layers import channel_last, mean_patch, unfold

from .modules import assert_agrees_with_defaults, assert_means, assert_unfolds, convolutions

pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same.")


@settings(max_examples=150)
@given(convolutions())
def test_unfolds(case):
    assert_unfolds(*case)


@settings(max_examples=100)
@given(convolutions())
def test_means(case):
    assert_means(*case)


@settings(max_examples=50)
@given(convolutions())
def test_agrees_with_defaults(case):
    assert_agrees_with_defaults(*case)


def test_every_tap_reads_its_own_input():
    # One row per column of the matrix: unfolding is the module's outputs for unit weights.
    module = nn.Conv2d(2, 18, 3, padding=1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(18).reshape(18, 2, 3, 3))
        x = torch.randn(2, 2, 4, 5)
        torch.testing.assert_close(next(unfold(module, x))[0], channel_last(module, module(x)))


def test_the_mean_patch_gives_the_mean_output():
    module = nn.Conv2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    x = torch.randn(4, 3, 7, 8, dtype=torch.float64)
    with torch.no_grad():
        got = mean_patch(module, x)[0] @ module.weight.reshape(5, -1).mT
        torch.testing.assert_close(got, module(x).mean(dim=(2, 3)))
