"""Closed forms against outputs in float64 where float32 products cancel."""

import numpy as np
import pytest
import torch
from tests.diagnosis.direct import count_at, damage, largest, layer_inputs, outputs
from torch import nn

from sparsemend.calibration import InputMoments, calibrate
from sparsemend.damage import output_statistics
from sparsemend.damage._doubt import variances
from sparsemend.diagnosis import GridMasks
from sparsemend.layers import weight_matrix
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.operators import OPERATORS

GRID = (0.01, 0.05, 0.2, 0.5, 0.9)
LAYERS = {
    "closed form": (lambda: nn.Conv2d(4, 6, 3, padding=1), 32, (4, 6, 6)),
    "strided": (lambda: nn.Conv2d(4, 6, 5, padding=2, stride=2, groups=2), 32, (4, 7, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, padding=1, stride=2), 32, (4, 5, 5)),
    "nested": (lambda: nn.Conv2d(64, 64, 3, padding=1), 16, (64, 8, 8)),
    "nested linear": (lambda: nn.Linear(900, 100), 64, (900,)),
    "held": (lambda: nn.Linear(1200, 64), 64, (1200,)),
    "held convolution": (lambda: nn.Conv2d(128, 8, 3, padding=1), 8, (128, 6, 6)),
}


def far_inputs(count, shape, ratio, seed):
    """Channels whose means are about ``ratio`` deviations away from zero."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.randn(shape[0], generator=generator).sign()
    means *= ratio * (0.5 + torch.rand(shape[0], generator=generator))
    x = torch.randn(count, *shape, generator=generator)
    return x + means.reshape(-1, *[1] * (len(shape) - 1))


@pytest.mark.parametrize("ratio", [1.0, 1e3, 1e6])
@pytest.mark.parametrize("name", LAYERS)
def test_damage_is_that_of_actual_outputs_in_every_channel(name, ratio):
    make, count, shape = LAYERS[name]
    torch.manual_seed(1)
    model, x = nn.Sequential(make()).eval(), far_inputs(count, shape, ratio, seed=1)
    calibration = calibrate(model, x.split(8))
    layer, module = calibration.layers[0], model[0]
    weight = module.weight.detach()
    inputs = layer_inputs(model, calibration.layers, x)["0"]
    z = outputs(module, weight.double().numpy(), inputs)
    matrix = weight_matrix(weight, layer)
    found = GridMasks(layer, matrix, calibration.moments["0"], GRID, MAGNITUDE).statistics()
    wide = weight.double().numpy()
    kept = [count_at(density, layer.size) for density in GRID]
    for index, pruned in enumerate(largest(wide, kept)):
        actual = outputs(module, pruned, inputs)
        for repair in ("none", "mean", "variance", "affine"):
            got = OPERATORS[repair].residual(found)[index].numpy()
            # Float64 itself leaves this of two outputs that are in proportion.
            rounding = 1e-13 * z.var(axis=0).max()
            np.testing.assert_allclose(got, damage(repair, z, actual), rtol=1e-3, atol=rounding)


def test_an_emptied_channel_has_the_residual_of_a_constant():
    """Its scale is large, and would multiply what rounding leaves of a covariance that is 0."""
    torch.manual_seed(0)
    dense, generator = torch.randn(1, 4, 1100), torch.Generator().manual_seed(0)
    dense[0, 0] *= 1e-3  # its weights go first
    moments = InputMoments.empty(1, 1100, torch.device("cpu"))
    moments.update(torch.randn(1, 2000, 1100, generator=generator))
    mask = torch.ones_like(dense)
    mask[0, 0] = 0
    found = output_statistics(dense, [dense * mask], moments)
    residual = OPERATORS["variance"].residual(found)[0]
    assert residual[0] == pytest.approx(float(found.dense_variance[0]), rel=1e-6)


def test_wide_layers_in_which_weights_cancel():
    """Two inputs that are nearly equal, and rows that take their difference."""
    generator, width = torch.Generator().manual_seed(0), 1100
    x = torch.randn(1, 3000, width, generator=generator)
    x[..., 1] = x[..., 0] + 1e-3 * x[..., 1]
    moments = InputMoments.empty(1, width, torch.device("cpu"))
    moments.update(x)
    assert moments.scatter.dtype == torch.float32
    dense = torch.zeros(1, 2, width)
    dense[0, 0, :3] = torch.tensor([100.0, -100.0, 0.1])
    dense[0, 1, 5:] = 1
    pruned = dense.clone()
    pruned[0, 0, 2] = 0
    found = output_statistics(dense, [pruned], moments)
    exact = moments.covariance[0]
    for got, rows in (
        (found.dense_variance, dense),
        (found.pruned_variance[0], pruned),
        (found.error_variance[0], pruned - dense),
    ):
        expected = variances(rows[0], exact)
        torch.testing.assert_close(got, expected, rtol=1e-6, atol=0)
