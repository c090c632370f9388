"""What least squares on the kept weights leaves, against a direct computation, and its order."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.diagnosis.direct import outputs
from torch import nn

from sparsemend import calibrate, diagnose
from sparsemend.calibration import kept_count
from sparsemend.damage import refit
from sparsemend.damage.refit import refitted_damage
from sparsemend.diagnosis import GridMasks
from sparsemend.layers import discover, stored_weight, unfold, weight_matrix
from sparsemend.masks import get_mask_rule
from sparsemend.solvers import least_squares

DENSITIES = (0.05, 0.1, 0.2, 0.4, 0.7, 0.9, 1)
MODULES = {
    "linear": (lambda: nn.Linear(9, 6), (80, 9)),
    "tokens": (lambda: nn.Linear(9, 6), (30, 4, 9)),
    "convolution": (lambda: nn.Conv2d(3, 5, 3, padding=1, bias=False), (9, 3, 6, 5)),
    "grouped": (lambda: nn.Conv1d(6, 8, 3, stride=2, groups=2), (30, 6, 11)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (9, 4, 6, 6)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (9, 4, 4, 4)),
}


def case(kind, seed=0):
    torch.manual_seed(seed)
    make, shape = MODULES[kind]
    module = make()
    x = torch.randn(shape) + 0.5
    calibration = calibrate(nn.Sequential(module), x)
    layer = calibration.layers[0]
    return module, x, layer, calibration.moments["0"]


def random_masks(layer, count=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (layer.groups, layer.rows // layer.groups, layer.fan_in)
    masks = [torch.rand(shape, generator=generator) < d for d in (0.1, 0.3, 0.6, 0.9)[:count]]
    masks[1][0, 0] = False
    masks[2][-1, -1] = True
    return masks


def refitted_by_hand(module, layer, x, mask):
    """Row by row, the kept weights (and a free shift) that come closest to the dense outputs."""
    dense = weight_matrix(module.weight.detach(), layer).double().numpy()
    columns = torch.cat(list(unfold(module, x.double())), dim=1).numpy()
    columns = columns - columns.mean(axis=1, keepdims=True)
    refitted = np.zeros_like(dense)
    for g, r in np.ndindex(dense.shape[:2]):
        kept = mask[g, r].numpy()
        target = columns[g] @ dense[g, r]
        refitted[g, r, kept] = np.linalg.lstsq(columns[g][:, kept], target, rcond=None)[0]
    return stored_weight(torch.from_numpy(refitted), layer).numpy()


@pytest.mark.parametrize("kind", MODULES)
def test_equals_a_forward_pass_with_the_refitted_weights(kind):
    module, x, layer, moments = case(kind)
    masks = random_masks(layer)
    got = refitted_damage(weight_matrix(module.weight.detach(), layer), masks, moments)
    z = outputs(module, module.weight.detach().double().numpy(), x)
    for mask, damage in zip(masks, got, strict=True):
        error = outputs(module, refitted_by_hand(module, layer, x, mask), x) - z
        np.testing.assert_allclose(damage, error.var(axis=0), rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("kind", ["tokens", "convolution", "grouped"])
def test_curves_of_gradual_masks_are_those_of_exact_refits_and_fall(kind):
    module, x, layer, moments = case(kind)
    dense = weight_matrix(module.weight.detach(), layer)
    masks = GridMasks(layer, dense, moments, DENSITIES, get_mask_rule("gradual"))
    net = nn.Sequential(module)
    got = diagnose(net, calibrate(net, x), "reconstruct", densities=DENSITIES, mask="gradual")
    z = outputs(module, module.weight.detach().double().numpy(), x)
    for damage, density, mask in zip(got.residual[0], DENSITIES, masks, strict=True):
        assert int(mask.sum()) == kept_count(density, layer)
        error = outputs(module, refitted_by_hand(module, layer, x, mask), x) - z
        expected = (error.var(axis=0) / z.var(axis=0)).mean()
        np.testing.assert_allclose(damage, expected, rtol=1e-3, atol=1e-7)
    assert (np.diff(got.residual[0]) <= 1e-9).all()


@pytest.mark.parametrize("kind", MODULES)
def test_nothing_is_left_where_all_is_kept_and_everything_where_nothing_is(kind):
    module, x, layer, moments = case(kind)
    dense = weight_matrix(module.weight.detach(), layer)
    full = torch.ones(dense.shape, dtype=torch.bool)
    got = refitted_damage(dense, [full, ~full], moments)
    assert not got[0].any()
    variance = outputs(module, module.weight.detach().double().numpy(), x).var(axis=0)
    np.testing.assert_allclose(got[1], variance, rtol=1e-4)


def test_damage_falls_as_supports_grow():
    module, _, layer, moments = case("convolution")
    score = torch.rand(1, layer.rows, layer.fan_in, generator=torch.Generator().manual_seed(3))
    masks = [score < density for density in np.linspace(0, 1, 15)]
    got = refitted_damage(weight_matrix(module.weight.detach(), layer), masks, moments)
    assert (got.diff(dim=0) <= 1e-9).all()


def test_iterated_refits_are_a_little_worse_than_exact_ones(monkeypatch):
    module, _, layer, moments = case("convolution")
    dense = weight_matrix(module.weight.detach(), layer)
    score = torch.rand(1, layer.rows, layer.fan_in, generator=torch.Generator().manual_seed(3))
    masks = [score < density for density in (0.07, 0.2, 0.5)]
    exact = refitted_damage(dense, masks, moments)
    monkeypatch.setattr(refit, "_ITERATED_FROM", 1)
    monkeypatch.setattr(least_squares, "_factorising_cost", lambda _: float("inf"))
    iterated = refitted_damage(dense, masks, moments)
    assert (iterated >= exact * (1 - 1e-5)).all()
    assert (iterated.sum(dim=1) <= 1.01 * exact.sum(dim=1)).all()
    assert not torch.equal(iterated, exact)


def test_of_close_masks_few_are_solved_for_from_the_largest_on(monkeypatch):
    module, _, layer, moments = case("convolution")
    dense = weight_matrix(module.weight.detach(), layer)
    score = torch.rand(1, layer.rows, layer.fan_in, generator=torch.Generator().manual_seed(3))
    masks = [score < density for density in (0.1, 0.2, 0.3, 0.35, 0.45, 0.54, 0.65, 0.8, 1)]
    exact = refitted_damage(dense, masks, moments)
    monkeypatch.setattr(refit, "_ITERATED_FROM", 1)
    monkeypatch.setattr(least_squares, "_factorising_cost", lambda _: float("inf"))
    solved = []

    def counted(*args):
        solved.append(int(args[2].sum()))
        return least_squares.solve_on_support(*args)

    monkeypatch.setattr(refit, "solve_on_support", counted)
    found = refitted_damage(dense, masks, moments)
    # The last keeps all. The next that is solved for is the smallest with more than half.
    known = [7, 3, 1, 0]
    assert solved == [int(masks[number].sum()) for number in known]
    torch.testing.assert_close(found[known], exact[known], rtol=0.02, atol=1e-4)
    torch.testing.assert_close(found.sum(dim=1), exact.sum(dim=1), rtol=0.15, atol=1e-4)
    assert (found.diff(dim=0) <= 0).all()


def test_between_masks_the_logarithm_of_damage_is_a_cubic():
    odds = torch.tensor([0.1, 0.15, 0.2, 0.3, 0.45, 0.6], dtype=torch.float64)
    powers = odds.log().unsqueeze(1) ** torch.arange(4)
    curves = torch.tensor([[-1.0, -3], [-0.7, -2], [-0.1, 0.1], [0.02, 0]], dtype=torch.float64)
    damage = (powers @ curves).exp()
    for number, known in ((2, [0, 1, 3, 4, 5]), (3, [0, 1, 2, 4, 5])):
        found = refit._between(odds.tolist(), known, damage, number)
        torch.testing.assert_close(found, damage[number])
    # Never beyond its neighbours.
    damage[4] = damage[2]
    found = refit._between(odds.tolist(), [0, 1, 2, 4, 5], damage, 3)
    torch.testing.assert_close(found, damage[2])


def test_masks_that_do_not_hold_each_other_are_told_apart():
    module, _, layer, moments = case("convolution")
    dense = weight_matrix(module.weight.detach(), layer)
    masks = random_masks(layer)
    masks = [masks[0], masks[0] | masks[1], masks[2], masks[2] | masks[3], masks[1]]
    together = refitted_damage(dense, masks, moments)
    alone = torch.cat([refitted_damage(dense, [mask], moments) for mask in masks])
    torch.testing.assert_close(together, alone)


def test_copies_and_dead_inputs():
    torch.manual_seed(0)
    module, x = nn.Linear(6, 4), torch.randn(50, 6)
    x[:, 1], x[:, 2] = x[:, 0], 3.0
    moments = calibrate(nn.Sequential(module), x).moments["0"]
    mask = torch.ones(1, 4, 6, dtype=torch.bool)
    mask[..., 1] = False  # its copy is kept
    mask[..., 2] = False  # a constant goes into the shift
    got = refitted_damage(module.weight.detach().unsqueeze(0), [mask], moments)
    assert got.isfinite().all()
    assert (got < 1e-6).all()


@st.composite
def small_networks(draw):
    """Two random layers of any kind, and inputs; sometimes fewer positions than columns."""
    torch.manual_seed(draw(st.integers(0, 10_000)))
    if draw(st.booleans()):
        widths = draw(st.tuples(*[st.integers(1, 12)] * 3))
        net = nn.Sequential(nn.Linear(*widths[:2]), nn.ReLU(), nn.Linear(*widths[1:]))
        x = torch.randn(draw(st.integers(3, 60)), widths[0])
    else:
        groups = draw(st.sampled_from((1, 2)))
        kind = draw(st.sampled_from((nn.Conv2d, nn.ConvTranspose2d)))
        width = 2 * draw(st.integers(1, 4))
        second = kind(width, 4, draw(st.integers(1, 3)), groups=groups, bias=draw(st.booleans()))
        net = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), second)
        x = torch.randn(draw(st.integers(1, 12)), 3, 5, 5)
    mixed = draw(st.booleans())  # correlated inputs, where refitting helps
    return net, x.cumsum(dim=1) if mixed else x + 0.3


@settings(max_examples=24)
@given(small_networks(), st.sampled_from(("magnitude", "activation", "gradual")))
def test_operators_are_ordered_for_every_layer_and_density(case, mask):
    # Refitting singular systems, as few positions give, amplifies the rounding of float32.
    net, x = case[0].double(), case[1].double()
    calibration = calibrate(net, x)
    residual = {
        name: diagnose(net, calibration, name, densities=DENSITIES, mask=mask).residual
        for name in ("mean", "variance", "affine", "reconstruct")
    }
    slack = 1e-6
    assert (residual["reconstruct"] <= residual["affine"] + slack).all()
    assert (residual["affine"] <= residual["variance"] + slack).all()
    assert (residual["affine"] <= residual["mean"] + slack).all()
    assert (residual["reconstruct"] >= -slack).all()


@pytest.mark.parametrize("density", [0.5, 0.9, 0.98])
def test_wide_layers_with_correlated_inputs_keep_the_order(density):
    # Wide and dense enough for conjugate gradients, and hard for them.
    torch.manual_seed(0)
    x = torch.randn(700, 20) @ torch.randn(20, 400) + 0.01 * torch.randn(700, 400)
    net = nn.Sequential(nn.Linear(400, 10))
    calibration = calibrate(net, x)
    left = [
        diagnose(net, calibration, name, densities=[density]).residual[0, 0]
        for name in ("reconstruct", "affine")
    ]
    assert left[0] <= left[1] + 1e-9


def test_the_layers_of_a_network_are_those_of_the_diagnosis():
    net, x = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3)), torch.randn(40, 5)
    calibration = calibrate(net, x)
    got = diagnose(net, calibration, "reconstruct", densities=[0.5], mask="gradual")
    assert got.layers == discover(net, x).names == ("0", "2")
    assert (got.repair, got.mask) == ("reconstruct", "gradual")
