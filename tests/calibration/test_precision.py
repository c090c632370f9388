"""Moments are exact for means up to a million deviations, and ordinary inputs stay as they are."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.calibration import calibrate
from sparsemend.calibration.precision import widened
from sparsemend.layers import unfold, weight_matrix

FEATURES = 4


@st.composite
def far_layers(draw):
    """A layer whose inputs' means are up to a million deviations away from zero, in float32."""
    kind = draw(st.sampled_from(("linear", "plain", "strided", "grouped", "transposed")))
    padding = draw(st.integers(0, 1))
    module = {
        "linear": lambda: nn.Linear(FEATURES, 3),
        "plain": lambda: nn.Conv2d(FEATURES, 3, 3, padding=padding),
        "strided": lambda: nn.Conv2d(FEATURES, 3, 3, padding=padding, stride=2),
        "grouped": lambda: nn.Conv2d(FEATURES, 4, 3, padding=padding, groups=2),
        "transposed": lambda: nn.ConvTranspose2d(FEATURES, 3, 3, padding=padding, stride=2),
    }[kind]()
    generator = torch.Generator().manual_seed(draw(st.integers(0, 999)))
    shape = (FEATURES,) if kind == "linear" else (FEATURES, 6, 6)
    x = torch.randn(32, *shape, generator=generator)
    size = 10.0 ** draw(st.floats(0, 6))
    means = size * (torch.rand(FEATURES, generator=generator) + 0.5)
    signs = torch.randn(FEATURES, generator=generator).sign()
    return module, x + (means * signs).reshape(-1, *[1] * (len(shape) - 1))


@settings(max_examples=60)
@given(far_layers())
def test_moments_are_those_of_float64(case):
    module, x = case
    calibration = calibrate(nn.Sequential(module), x.split(8))
    layer, moments = calibration.layers[0], calibration.moments["0"]
    columns = torch.cat(list(unfold(module, x.double())), dim=1)
    mean = columns.mean(dim=1)
    centred = columns - mean.unsqueeze(1)
    torch.testing.assert_close(moments.mean, mean, rtol=1e-9, atol=1e-6)
    # Outputs in which what zeros in the padding do cancels: the covariance of the data alone.
    covariance = centred.mT @ centred / columns.shape[1]
    weight = weight_matrix(module.weight.detach(), layer).double()
    weight = torch.cat([weight, torch.randn_like(weight)], dim=1)
    eigen = torch.linalg.eigh(covariance).eigenvectors.mT
    for rows in (weight, eigen):
        expected = ((rows @ centred.mT) ** 2).mean(dim=2)
        got = ((rows @ moments.covariance) * rows).sum(dim=2)
        scale = expected.amax() * 1e-13  # float64's own rounding of products that cancel
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=float(scale))


@pytest.mark.parametrize("ratio", [0.0, 1.0, 20.0])
def test_ordinary_inputs_stay_as_they_are(ratio):
    x = torch.randn(16, 4, 6, 6) + ratio
    x[:, 1] = 0
    for module in (nn.Conv2d(4, 2, 3, padding=1), nn.Conv2d(4, 2, 3)):
        assert widened(module, x) is x
    flat = x.flatten(1)
    assert widened(nn.Linear(flat.shape[1], 2), flat) is flat


@pytest.mark.parametrize(
    ("ratio", "module", "held", "wide"),
    [
        (50.0, nn.Conv2d(4, 2, 3, padding=1), False, True),
        (50.0, nn.Conv2d(4, 2, 3), False, False),
        (50.0, nn.Conv2d(4, 2, 3), True, True),
        (5000.0, nn.Conv2d(4, 2, 3), False, True),
    ],
)
def test_means_far_from_zero(ratio, module, held, wide):
    x = torch.randn(16, 4, 6, 6) + ratio
    found = widened(module, x, held=held)
    assert (found.dtype == torch.float64) is wide
    assert torch.equal(found, x.to(found.dtype))
