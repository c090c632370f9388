import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.layers import (
    channel_last,
    discover,
    matrix,
    stored_weight,
    unfold,
    weight_matrix,
)

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}


def per_dim(dims, values):
    return st.tuples(*[values] * dims)


@st.composite
def channels(draw):
    groups = draw(st.integers(1, 3))
    return {
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "groups": groups,
        "bias": draw(st.booleans()),
        "dtype": torch.float64,
    }


@st.composite
def inputs_of(draw, module, sizes):
    """Random inputs for a convolution, with a batch dimension or without."""
    batch = draw(st.sampled_from(((), (1,), (2,))))
    size = draw(per_dim(len(module.kernel_size), sizes))
    torch.manual_seed(draw(st.integers(0, 99)))
    return torch.randn(*batch, module.in_channels, *size, dtype=torch.float64)


@st.composite
def convolutions(draw):
    dims = draw(st.integers(1, 3))
    mode = draw(st.sampled_from(("zeros", "reflect", "replicate", "circular")))
    padding = draw(st.one_of(per_dim(dims, st.integers(0, 2)), st.sampled_from(("same", "valid"))))
    stride = draw(per_dim(dims, st.integers(1, 3)))
    module = CONVOLUTIONS[dims](
        **draw(channels()),
        kernel_size=draw(per_dim(dims, st.integers(1, 3))),
        stride=1 if padding == "same" else stride,
        padding=padding,
        padding_mode=mode,
        dilation=draw(per_dim(dims, st.integers(1, 2))),
    )
    return module, draw(inputs_of(module, st.integers(5, 7)))


@st.composite
def transposed_convolutions(draw):
    dims = draw(st.integers(1, 3))
    stride = draw(per_dim(dims, st.integers(1, 3)))
    dilation = draw(per_dim(dims, st.integers(1, 2)))
    extra = tuple(
        draw(st.integers(0, max(pair) - 1)) for pair in zip(stride, dilation, strict=True)
    )
    module = TRANSPOSED[dims](
        **draw(channels()),
        kernel_size=draw(per_dim(dims, st.integers(1, 3))),
        stride=stride,
        padding=draw(per_dim(dims, st.integers(0, 3))),
        output_padding=extra,
        dilation=dilation,
    )
    return module, draw(inputs_of(module, st.integers(1, 4)))


@st.composite
def linears(draw):
    module = nn.Linear(draw(st.integers(1, 5)), draw(st.integers(1, 5)), dtype=torch.float64)
    lead = draw(st.sampled_from(((), (1,), (3,), (2, 3), (2, 1, 3))))
    torch.manual_seed(draw(st.integers(0, 99)))
    return module, torch.randn(*lead, module.in_features, dtype=torch.float64)


def assert_unfolds(module, x):
    """inputs @ matrixᵀ + bias is what the module itself computes."""
    layer = discover(nn.Sequential(module))[0]
    with torch.no_grad():
        matrix = weight_matrix(module.weight, layer)
        assert matrix.shape == (layer.groups, layer.rows // layer.groups, layer.fan_in)
        columns = torch.cat(list(unfold(module, x)), dim=1)
        z = (columns @ matrix.mT).transpose(0, 1).flatten(1)
        if module.bias is not None:
            z = z + module.bias
        torch.testing.assert_close(z, channel_last(module, module(x)), rtol=1e-12, atol=1e-12)
        assert torch.equal(stored_weight(matrix, layer), module.weight)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@settings(max_examples=150)
@given(convolutions())
def test_convolutions(case):
    assert_unfolds(*case)


@settings(max_examples=100)
@given(transposed_convolutions())
def test_transposed_convolutions(case):
    module, x = case
    try:
        module(x)
    except RuntimeError:  # more padding than output
        assume(False)
    assert_unfolds(module, x)


@settings(max_examples=30)
@given(linears())
def test_linear_layers(case):
    assert_unfolds(*case)


def test_every_tap_reads_its_own_input():
    # One row per column of the matrix: unfolding is the module's outputs for unit weights.
    module = nn.Conv2d(2, 18, 3, padding=1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.eye(18).reshape(18, 2, 3, 3))
        x = torch.randn(2, 2, 4, 5)
        torch.testing.assert_close(next(unfold(module, x))[0], channel_last(module, module(x)))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Conv2d(4, 6, 3, padding=1, groups=2), (7, 4, 6, 6)),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), (7, 4, 5)),
        (nn.Linear(4, 6), (7, 5, 4)),
    ],
)
def test_chunks_are_bounded_and_hold_every_position_once(monkeypatch, module, shape):
    x = torch.randn(shape)
    whole = torch.cat(list(unfold(module, x)), dim=1)
    limit = whole.numel() // 3
    monkeypatch.setattr(matrix, "_CHUNK_ELEMENTS", limit)
    chunks = list(unfold(module, x))
    assert len(chunks) >= 3
    assert all(chunk.numel() <= limit * 1.5 for chunk in chunks)
    assert torch.equal(torch.cat(chunks, dim=1), whole)


def test_other_modules_are_refused():
    with pytest.raises(SparsemendError) as caught:
        next(unfold(nn.BatchNorm2d(3), torch.ones(1, 3, 2, 2)))
    assert str(caught.value) == "cannot unfold the input of this module: got 'BatchNorm2d'"
