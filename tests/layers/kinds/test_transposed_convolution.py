import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.layers import kind_of, mean_patch

from .modules import (
    assert_agrees_with_defaults,
    assert_means,
    assert_unfolds,
    transposed_convolutions,
)


@st.composite
def runnable(draw):
    module, x = draw(transposed_convolutions())
    try:
        module(x)
    except RuntimeError:  # more padding than output
        assume(False)
    return module, x


@settings(max_examples=100)
@given(runnable())
def test_unfolds(case):
    assert_unfolds(*case)


@settings(max_examples=60)
@given(runnable())
def test_means(case):
    assert_means(*case)


@settings(max_examples=50)
@given(runnable())
def test_agrees_with_defaults(case):
    assert_agrees_with_defaults(*case)


def test_the_mean_patch_gives_the_mean_output():
    module = nn.ConvTranspose2d(3, 5, 3, stride=2, padding=1, bias=False).double()
    x = torch.randn(4, 3, 7, 8, dtype=torch.float64)
    weight = module.weight.transpose(0, 1)
    with torch.no_grad():
        got = mean_patch(module, x)[0] @ weight.reshape(5, -1).mT
        torch.testing.assert_close(got, module(x).mean(dim=(2, 3)))


def test_it_is_not_read_as_a_convolution():
    module, x = nn.ConvTranspose1d(2, 3, 2), torch.randn(1, 2, 5)
    kind = kind_of(module)
    assert not kind.reads_as_convolution
    assert kind.offset_axes(module, tuple(x.shape)) is None
    with pytest.raises(NotImplementedError, match="cannot be read as a convolution"):
        kind.as_convolution(module, x)
