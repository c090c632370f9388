"""Modules of every kind with inputs to call them with, and what holds for all kinds."""

import torch
from hypothesis import strategies as st
from torch import nn

from sparsemend.layers import (
    LayerKind,
    channel_last,
    discover,
    kind_of,
    mean_patch,
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


def assert_means(module, x):
    """Means over positions without unfolding are those of the unfolded inputs."""
    x = x if x.dim() == len(module.kernel_size) + 2 else x.unsqueeze(0)
    columns = torch.cat([part for one in x for part in unfold(module, one)], dim=1)
    expected = columns.unflatten(1, (len(x), -1)).mean(dim=2)
    got = mean_patch(module, x)
    assert got.shape == expected.shape
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def assert_agrees_with_defaults(module, x):
    """What a kind computes in a way of its own is what a kind gets that only unfolds."""
    layer, kind = discover(nn.Sequential(module))[0], kind_of(module)
    with torch.no_grad():
        targets = torch.randn_like(module(x))
    for name, *rest in (("column_sum", x, x.dtype), ("cross_sum", layer, x, targets)):
        got, expected = (getattr(cls, name)(kind, module, *rest) for cls in (type(kind), LayerKind))
        torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-10)
