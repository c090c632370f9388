"""Moments from offset blocks against moments of the unfolded inputs."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.calibration import InputMoments, calibrate
from sparsemend.calibration.choice import choose_way
from sparsemend.calibration.offset_blocks import OffsetBlocks
from sparsemend.calibration.taps import families, sees_most
from sparsemend.layers import count_positions, discover, kind_of, unfold

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def unfolded_moments(module, x):
    """Count, mean and scatter of the unfolded inputs, in float64."""
    columns = torch.cat([part.double() for part in unfold(module, x)], dim=1)
    mean = columns.mean(dim=1)
    centred = columns - mean.unsqueeze(1)
    return columns.shape[1], mean, centred.mT @ centred


@st.composite
def convolutions(draw, groups=False, stride=4):
    """A convolution and inputs [N, C, *spatial] of a size that it accepts."""
    dims = draw(st.integers(1, 3))

    def each(strategy):
        return tuple(draw(strategy) for _ in range(dims))

    kernel = each(st.integers(1, 3 if dims == 3 else 5))
    dilation = each(st.integers(1, 3))
    stride = each(st.integers(1, stride))
    modes = ["zeros", "replicate", "circular", "reflect"]
    mode = draw(st.sampled_from(modes))
    padding = draw(st.sampled_from(("same", "valid", "numbers")))
    if padding == "same":
        stride = (1,) * dims
    if padding == "numbers":
        padding = each(st.integers(0, 3))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    # Padding modes that copy data need as much of it as they copy.
    size = [max(4, r) + draw(st.integers(0, 4)) for r in reach]
    split = draw(st.sampled_from((1, 2, 3))) if groups else 1
    channels = split * draw(st.integers(1, 3))
    module = CONVOLUTIONS[dims](
        channels, split, kernel, stride, padding, dilation, groups=split, padding_mode=mode
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.integers(1, 4)), channels, *size, generator=generator)
    return module, x + draw(st.sampled_from((0.0, 3.0)))


def patch_moments(module, x, *, whole=False):
    """Count, mean and scatter of the unfolded inputs of a convolution."""
    blocks = OffsetBlocks(module, x, whole=whole)
    blocks.add(x)
    return blocks.moments()


def assert_moments(got, expected, rtol):
    count, mean, scatter = got
    assert count == expected[0]
    torch.testing.assert_close(mean.double(), expected[1], rtol=rtol, atol=rtol)
    scale = max(1.0, expected[2].abs().max().item())
    torch.testing.assert_close(scatter.double(), expected[2], rtol=0, atol=rtol * scale)


@settings(max_examples=80)
@given(convolutions())
def test_equal_to_unfolded_moments(case):
    module, x = case
    expected = unfolded_moments(module, x.double())
    assert_moments(patch_moments(module, x.double()), expected, 1e-11)
    assert_moments(patch_moments(module, x), expected, 1e-5)


@settings(max_examples=80)
@given(convolutions(stride=1))
def test_whole_maps_equal_unfolded_moments(case):
    module, x = case
    axes, _ = kind_of(module).as_convolution(module, x)
    assume(sees_most(axes))
    expected = unfolded_moments(module, x.double())
    assert_moments(patch_moments(module, x.double(), whole=True), expected, 1e-11)
    assert_moments(patch_moments(module, x, whole=True), expected, 1e-5)


@settings(max_examples=60)
@given(convolutions(groups=True))
def test_calibration_is_exact_whatever_way_is_chosen(case):
    module, x = case
    (layer,) = discover(nn.Sequential(module), x)
    found = calibrate(nn.Sequential(module), [x, x[:1]], progress=False).moments[layer.name]
    expected = unfolded_moments(module, torch.cat([x, x[:1]]).double())
    assert_moments((found.count, found.mean, found.scatter), expected, 2e-5)


@given(convolutions(groups=True))
def test_count_of_positions(case):
    module, x = case
    assert count_positions(module, x) == unfolded_moments(module, x)[0]


def test_three_by_three_has_thirteen_products():
    module = nn.Conv2d(2, 2, 3, padding=1)
    found = families(kind_of(module).offset_axes(module, (1, 2, 8, 8)))
    assert len(found) == 13
    assert sum(len(family.pairs) for family in found) == 45


@pytest.mark.parametrize("stride", [1, 2])
def test_wide_layers_and_several_chunks(stride):
    """Every branch of the products: joined lines, batched lines, lines one by one."""
    for channels, size, count in ((4, 24, 1000), (160, 20, 20)):
        module = nn.Conv2d(channels, 1, 3, stride, 1)
        x = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
        assert_moments(patch_moments(module, x), unfolded_moments(module, x), 1e-5)


def test_a_constant_far_from_zero_does_not_cancel():
    module = nn.Conv2d(3, 2, 3)
    noise = torch.randn(8, 3, 9, 9, generator=torch.Generator().manual_seed(2))
    x = 4096 + (noise * 64).round() / 64  # exact in float32
    _, mean, scatter = patch_moments(module, x)
    expected = unfolded_moments(module, x.double())
    torch.testing.assert_close(mean.double(), expected[1], rtol=1e-9, atol=0)
    torch.testing.assert_close(scatter.double(), expected[2], rtol=1e-4, atol=1e-3)


def test_constant_channels_have_no_variance():
    x = torch.full((6, 2, 7, 7), 0.1)
    assert not patch_moments(nn.Conv2d(2, 1, 3), x)[2].any()


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(kind):
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3)).to(kind)
    module = nn.Conv2d(3, 2, 3, padding=1)
    got = patch_moments(module, x)
    assert got[2].dtype == torch.float32
    assert_moments(got, unfolded_moments(module, x.double()), 1e-5)


def test_batches_add_up():
    module = nn.Conv2d(3, 2, 3, stride=2, padding=1)
    x = torch.randn(9, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    blocks = OffsetBlocks(module, x[:2])
    for part in (x[:2], x[2:3], x[3:]):
        blocks.add(part)
    assert_moments(blocks.moments(), unfolded_moments(module, x), 1e-11)
    moments = InputMoments.empty(1, 27, x.device)
    for part in (x[:5], x[5:]):
        moments.add(*patch_moments(module, part))
    assert_moments(
        (moments.count, moments.mean, moments.scatter), unfolded_moments(module, x), 1e-11
    )


def test_no_inputs_add_nothing():
    module = nn.Conv1d(2, 1, 3)
    count, mean, scatter = OffsetBlocks(module, torch.randn(2, 2, 6)).moments()
    assert (count, tuple(mean.shape), tuple(scatter.shape)) == (0, (1, 6), (1, 6, 6))
    assert not mean.any()
    assert not scatter.any()


@pytest.mark.parametrize(
    ("module", "shape", "way"),
    [
        (nn.Conv2d(64, 8, 3, padding=1), (128, 64, 32, 32), "whole maps"),
        (nn.Conv2d(64, 8, 3, padding=1), (1, 64, 32, 32), "offsets"),  # a transform for one input
        (nn.Conv2d(64, 8, 3, 2, padding=1), (128, 64, 32, 32), "offsets"),
        (nn.Conv2d(64, 8, 1), (128, 64, 32, 32), "offsets"),  # laid out, but not unfolded
        (nn.Conv2d(3, 8, 3, padding=1, stride=2), (128, 3, 32, 32), "unfolding"),
        (nn.Conv2d(64, 64, 3, groups=64), (128, 64, 32, 32), "unfolding"),
        (nn.Conv2d(3, 8, 16, stride=16), (8, 3, 64, 64), "unfolding"),
        (nn.ConvTranspose2d(64, 8, 3), (128, 64, 16, 16), "unfolding"),
        (nn.Linear(64, 8), (128, 64), "unfolding"),
    ],
)
def test_choice_by_cost(module, shape, way):
    assert choose_way(module, shape) == way


@pytest.mark.parametrize(
    ("module", "shape", "way"),
    [
        (nn.Conv2d(64, 8, 3, padding=1), (128, 64, 32, 32), "offsets"),
        (nn.Conv2d(512, 8, 3, padding=1), (128, 512, 4, 4), "whole maps"),
        (nn.Conv2d(16, 8, 3, padding=1), (128, 16, 32, 32), "unfolding"),
    ],
)
def test_on_an_accelerator_few_calls_are_worth_more_multiplications(module, shape, way):
    assert choose_way(module, shape, torch.device("cuda")) == way


def test_few_positions_of_a_wide_layer_are_kept():
    module = nn.Conv2d(130, 4, 3, padding=1)
    x = torch.randn(6, 130, 6, 6, generator=torch.Generator().manual_seed(5))
    found = calibrate(nn.Sequential(module), [x[:2], x[2:]], progress=False).moments["0"]
    assert found.held is not None
    expected = unfolded_moments(module, x)
    square = expected[2].diagonal(dim1=1, dim2=2) / 216 + expected[1].square()
    torch.testing.assert_close(found.column_square, square, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found.held.mean_power(2), square, rtol=1e-5, atol=1e-6)
    summed = found.summed()
    assert_moments((summed.count, summed.mean, summed.scatter), expected, 1e-5)
    torch.testing.assert_close(found.scatter, summed.scatter, rtol=0, atol=0)
    assert found.held is not None  # reading changes nothing
    found.form_sums()
    assert found.held is None
    torch.testing.assert_close(found.column_square, square, rtol=1e-5, atol=1e-6)
    more = calibrate(nn.Sequential(module), [x[:2]] * 19, progress=False).moments["0"]
    assert more.held is None
    assert_moments(
        (more.count, more.mean, more.scatter),
        unfolded_moments(module, x[:2].repeat(19, 1, 1, 1)),
        1e-5,
    )
