"""The mean over positions of unfolded inputs, found without unfolding."""

import pytest
import torch
from hypothesis import assume, given, settings
from torch import nn

from sparsemend.layers import mean_patch, unfold

from .test_matrix import convolutions, transposed_convolutions


def assert_is_mean_of_unfolded(module, x):
    x = x if x.dim() == len(module.kernel_size) + 2 else x.unsqueeze(0)
    columns = torch.cat([part for one in x for part in unfold(module, one)], dim=1)
    expected = columns.unflatten(1, (len(x), -1)).mean(dim=2)
    got = mean_patch(module, x)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@settings(max_examples=100)
@given(convolutions())
def test_convolutions(case):
    assert_is_mean_of_unfolded(*case)


@settings(max_examples=60)
@given(transposed_convolutions())
def test_transposed_convolutions(case):
    module, x = case
    try:
        module(x)
    except RuntimeError:  # more padding than output
        assume(False)
    assert_is_mean_of_unfolded(module, x)


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_gives_the_mean_output(kind):
    module = kind(3, 5, 3, stride=2, padding=1, bias=False).double()
    x = torch.randn(4, 3, 7, 8, dtype=torch.float64)
    weight = module.weight if kind is nn.Conv2d else module.weight.transpose(0, 1)
    with torch.no_grad():
        got = mean_patch(module, x)[0] @ weight.reshape(5, -1).mT
        torch.testing.assert_close(got, module(x).mean(dim=(2, 3)))
