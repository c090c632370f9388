import copy

import numpy as np
import pytest
import torch
from torch import nn

from sparsemend.calibration import DEFAULT_DENSITIES, calibrate
from sparsemend.diagnosis import diagnose
from sparsemend.errors import SparsemendError
from sparsemend.masks import MASKS
from sparsemend.operators import OPERATORS

from .direct import count_at, damage, largest, layer_inputs, outputs

CHANNELWISE = ["none", "mean", "variance", "layerwise", "shrinkage", "affine"]


def make_network():
    """Convolution, BatchNorm, grouped and transposed convolution, linear; trained statistics."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, groups=2, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(16, 5),
    )
    for _ in range(20):
        net(make_inputs(seed=2))
    return net.eval()


def make_inputs(count=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 6, 6, generator=generator) + 0.5


@pytest.fixture(scope="module")
def network():
    return make_network()


@pytest.fixture(scope="module")
def calibration(network):
    return calibrate(network, make_inputs().split(17))


@pytest.fixture(scope="module")
def pairs(network, calibration):
    """Layer name → dense outputs and those at every density."""
    found = {}
    for name, x in layer_inputs(network, calibration.layers, make_inputs()).items():
        module = network.get_submodule(name)
        weight = module.weight.detach().double().numpy()
        pruned = largest(weight, [count_at(density, weight.size) for density in DEFAULT_DENSITIES])
        found[name] = (outputs(module, weight, x), [outputs(module, w, x) for w in pruned])
    return found


# Closed form against the direct way


@pytest.mark.parametrize("weighting", ["relative", "energy"])
@pytest.mark.parametrize("repair", CHANNELWISE)
def test_closed_form_is_what_a_forward_pass_measures(
    network, calibration, pairs, repair, weighting
):
    got = diagnose(network, calibration, repair, weighting=weighting)
    assert got.layers == tuple(pairs) == ("0", "3", "6", "10")
    assert got.raw.shape == got.residual.shape == got.rr.shape == (4, 24)
    for index, (z, pruned) in enumerate(pairs.values()):
        omega = 1 / z.var(axis=0) if weighting == "relative" else np.ones(z.shape[1])
        total = (omega * z.var(axis=0)).sum()
        raw = np.array([(omega * damage("none", z, p)).sum() for p in pruned]) / total
        left = np.array([(omega * damage(repair, z, p)).sum() for p in pruned]) / total
        np.testing.assert_allclose(got.raw[index], raw, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(got.residual[index], left, rtol=1e-3, atol=1e-9)
        np.testing.assert_allclose(got.rr[index, :-1], left[:-1] / raw[:-1], rtol=1e-3)


def test_ratio_and_order(network, calibration):
    by_repair = {name: diagnose(network, calibration, name) for name in (*OPERATORS, "reconstruct")}
    raw = by_repair["none"].raw
    for name, diagnosis in by_repair.items():
        np.testing.assert_array_equal(diagnosis.raw, raw)
        pruned = np.isfinite(diagnosis.rr)
        np.testing.assert_array_equal(
            diagnosis.rr[pruned], (diagnosis.residual / np.where(raw > 0, raw, 1))[pruned]
        )
        assert (diagnosis.residual >= 0).all(), name
        assert diagnosis.repair == name
    residual = {name: diagnosis.residual for name, diagnosis in by_repair.items()}
    for name in CHANNELWISE:
        assert (residual["affine"] <= residual[name] + 1e-12).all(), name
    assert (residual["reconstruct"] <= residual["affine"] + 1e-9).all()
    assert (by_repair["none"].rr[:, :-1] == 1).all()


def test_damage_falls_with_density(network, calibration):
    residual = diagnose(network, calibration, "reconstruct").residual
    assert (np.diff(residual, axis=1) <= 1e-9).all()


# Invariances


@pytest.mark.parametrize("repair", CHANNELWISE)
@pytest.mark.parametrize("weighting", ["relative", "energy"])
def test_scale_of_layers_does_not_matter(repair, weighting):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False))
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight.mul_(1e-4)
        scaled[0].bias.mul_(1e-4)
        scaled[2].weight.mul_(3e5)
    got = [diagnose(n, calibrate(n, make_inputs()), repair, weighting=weighting)
           for n in (net, scaled)]  # fmt: skip
    for name in ("raw", "residual", "rr"):
        one, other = (getattr(d, name) for d in got)
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-10)


@pytest.mark.parametrize("repair", ["none", "mean", "variance", "affine"])
def test_scale_of_single_channels_does_not_matter(repair):
    # Masks chosen row by row stay, and every channel counts the same.
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(20, 4))
    scaled = copy.deepcopy(net)
    with torch.no_grad():
        scaled[0].weight.mul_(torch.tensor([[1.0], [1e-2], [1e3], [-2.0]]))
    x = torch.randn(100, 20)
    one, other = (diagnose(n, calibrate(n, x), repair, mask="activation") for n in (net, scaled))
    assert other.left_out == {}
    np.testing.assert_allclose(one.raw, other.raw, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(one.residual, other.residual, rtol=1e-4, atol=1e-10)


def test_biases_do_not_matter(network):
    shifted = copy.deepcopy(network)
    with torch.no_grad():
        shifted[10].bias.add_(100)
    one, other = (diagnose(n, calibrate(n, make_inputs())) for n in (network, shifted))
    np.testing.assert_allclose(one.raw[-1], other.raw[-1], rtol=1e-9)


# Channels without variance, densities without pruning


@pytest.mark.parametrize("repair", OPERATORS)
def test_dead_channels_are_left_out_and_counted(repair):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
    x = torch.randn(64, 6)
    x[:, 5] = 2.0
    with torch.no_grad():
        net[0].weight[1] = 0
        net[0].weight[2, :5] = 0  # sees the constant input only
    got = diagnose(net, calibrate(net, x), repair)
    assert got.left_out == {"0": 2}
    alive = nn.Sequential(nn.Linear(6, 3))
    with torch.no_grad():
        alive[0].weight.copy_(net[0].weight[[0, 3, 4]])
    assert np.isfinite(got.raw).all()
    assert np.isfinite(got.residual).all()
    full = diagnose(alive, calibrate(alive, x), repair, densities=[1])
    np.testing.assert_array_equal(got.raw[0, -1:], full.raw[0])


def test_a_constant_layer_has_no_damage():
    net = nn.Sequential(nn.Linear(6, 5))
    got = diagnose(net, calibrate(net, torch.ones(64, 6)))
    assert got.left_out == {"0": 5}
    assert (got.raw == 0).all()
    assert np.isnan(got.rr).all()


def test_undefined_where_nothing_is_pruned():
    net = nn.Sequential(nn.Linear(4, 1), nn.Linear(1, 30))
    got = diagnose(net, calibrate(net, torch.randn(64, 4)), densities=[0.1, 0.4, 0.9, 1])
    # Of four weights 0, 2, 4 and 4 are kept, the first raised to one.
    np.testing.assert_array_equal(np.isnan(got.rr[0]), [False, False, True, True])
    np.testing.assert_array_equal(got.raw[0, 2:], 0)
    np.testing.assert_allclose(got.residual[0, 2:], 0, atol=1e-18)
    np.testing.assert_array_equal(np.isnan(got.rr[1]), [False, False, False, True])


# Choices


def test_densities_and_masks(network, calibration):
    every = diagnose(network, calibration)
    assert tuple(every.densities) == DEFAULT_DENSITIES
    some = diagnose(network, calibration, densities=[1, 0.1, 0.01, 0.1])
    assert some.densities.tolist() == [0.01, 0.1, 1.0]
    np.testing.assert_array_equal(some.raw[:, [0, 2]], every.raw[:, [0, -1]])
    other = diagnose(network, calibration, mask="activation")
    assert (other.mask, every.mask) == ("activation", "magnitude")
    assert not np.allclose(other.raw, every.raw)
    assert (every.inputs, every.weighting, every.repair) == (48, "relative", "variance")


def test_the_model_and_the_calibration_are_unchanged(network, calibration):
    before = copy.deepcopy((network.state_dict(), calibration.moments["3"].scatter))
    one = diagnose(network, calibration)
    torch.testing.assert_close(
        (network.state_dict(), calibration.moments["3"].scatter), before, rtol=0, atol=0
    )
    np.testing.assert_array_equal(one.rr, diagnose(network, calibration).rr)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"repair": "magic"}, "unknown repair operator: got 'magic'; allowed: none, mean, "),
        ({"mask": "random"}, "unknown mask: got 'random'; allowed: "),
        ({"weighting": "x"}, "unknown weighting: got 'x'; allowed: relative, energy"),
        ({"densities": [0.0]}, r"densities are not a grid: got \[0.0\]; allowed: fractions in"),
    ],
)
def test_unknown_choices(network, calibration, options, text):
    with pytest.raises(SparsemendError, match=f"^{text}"):
        diagnose(network, calibration, **options)
    if "mask" in options:
        with pytest.raises(SparsemendError) as caught:
            diagnose(network, calibration, **options)
        assert all(name in str(caught.value) for name in MASKS)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (nn.Sequential(nn.Linear(3, 3)), r"weight shape \(3, 3\)"),
        (nn.Sequential(nn.BatchNorm2d(3, affine=False)), "no weight"),
        (nn.ReLU(), "no weight"),
    ],
)
def test_calibrations_of_another_network_are_refused(calibration, other, found):
    text = (
        f"^the calibration is of another network: layer '0' has {found}; allowed: "
        r"\(6, 3, 3, 3\), as calibrated; calibrate this model first$"
    )
    with pytest.raises(SparsemendError, match=text):
        diagnose(other, calibration)
