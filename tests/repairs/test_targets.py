"""What a layer should output: shortcuts undone, ReLUs seen through, dead channels left alone."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.layers import discover
from sparsemend.masks.gradual import GRADUAL
from sparsemend.repairs.fit import Choice, FitSettings, LayerInputs, fit_layer
from sparsemend.repairs.targets import Targets, channel_shape, norm_affine

from .networks import randomise


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def random_targets(seed=0, batches=2, channels=4, shortcut=True):
    """Targets of a convolution with random normalisation, and the shortcut's dense values."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    shape = (3, channels, 5, 5)
    slope, offset = draw(1, channels, 1, 1).clamp(min=0.1), draw(1, channels, 1, 1)
    dense = [draw(*shape) for _ in range(batches)]
    right = [draw(*shape) for _ in range(batches)]
    wrong = [s + 0.5 * draw(*shape) for s in right] if shortcut else None
    joined = [
        slope * z + offset + (s if shortcut else 0) for z, s in zip(dense, right, strict=True)
    ]
    usable = torch.ones(1, channels, 1, 1, dtype=torch.bool)
    return Targets(dense, joined, wrong, slope, offset, usable)


def test_without_a_shortcut_the_first_targets_are_the_dense_outputs():
    targets = random_targets(shortcut=False)
    assert all(map(torch.equal, targets.first(), targets.dense))


@pytest.mark.parametrize("seed", range(3))
def test_first_targets_undo_a_wrong_shortcut(seed):
    targets = random_targets(seed)
    for z, wrong, joined in zip(
        targets.first(), targets.shortcut, targets.dense_joined, strict=True
    ):
        sums = targets.slope * z + targets.offset + wrong
        torch.testing.assert_close(sums, joined, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shortcut", [False, True])
def test_rectified_targets_by_hand(shortcut):
    targets = random_targets(shortcut=shortcut)
    part = slice(1, None, 2)
    output = torch.randn(3, 4, 5, 5)[part]
    wanted = targets.first()[1][part] + targets.change(1, part, output.clone())
    add = targets.shortcut[1][part] if shortcut else 0
    present = targets.slope * output + targets.offset + add
    aimed = targets.slope * wanted + targets.offset + add
    joined = targets.dense_joined[1][part]
    on = joined > 0
    torch.testing.assert_close(aimed[on], joined[on], rtol=1e-4, atol=1e-5)
    off = present.clamp(max=0)[~on]
    torch.testing.assert_close(aimed[~on], off, rtol=1e-4, atol=1e-5)
    # What is right already stays.
    fits = ~on & (present <= 0)
    torch.testing.assert_close(wanted[fits], output[fits], rtol=1e-4, atol=1e-4)


def test_channels_that_are_switched_off_keep_their_dense_targets():
    targets = random_targets()
    slope, usable = targets.slope.clone(), targets.usable.clone()
    slope[:, 1], usable[:, 1] = 0, False
    targets = replace(targets, slope=slope, usable=usable)
    first = targets.first()[0]
    rectified = first + targets.change(0, slice(None), torch.randn(3, 4, 5, 5))
    for found in (first, rectified):
        assert found.isfinite().all()
        assert torch.equal(found[:, 1], targets.dense[0][:, 1])
        assert not torch.equal(found[:, 0], targets.dense[0][:, 0])


@pytest.mark.parametrize("affine", [True, False])
def test_the_affine_map_is_that_of_the_norm(affine):
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6, affine=affine))
    randomise(net, 1)
    if affine:
        with torch.no_grad():
            net[1].weight[2] = 1e-7
    x = torch.randn(2, 3, 5, 5)
    layer = discover(net, x)[0]
    slope, offset, usable = norm_affine(net, layer, x.device)
    with torch.no_grad():
        z = net[0](x)
        torch.testing.assert_close(slope * z + offset, net[1](z))
    assert (~usable).sum() == int(affine)
    assert usable.shape == (6, 1, 1)


def test_norms_that_are_no_fixed_map_have_none():
    x = torch.randn(2, 4, 5, 5)
    for norm in (nn.GroupNorm(2, 6), nn.BatchNorm2d(6, track_running_stats=False)):
        net = nn.Sequential(nn.Conv2d(4, 6, 3), norm)
        assert norm_affine(net, discover(net, x)[0], x.device) is None
    alone = nn.Sequential(nn.Linear(4, 6))
    layer = discover(alone, torch.randn(2, 4))[0]
    slope, offset, usable = norm_affine(alone, layer, x.device)
    assert (float(slope), float(offset), bool(usable)) == (1, 0, True)
    assert channel_shape(layer) == (-1,)


def errors_of(module, fit, inputs, targets):
    """E(relu(u) − relu(u_dense))² per channel of a fit, and the bound that the refits lower."""
    exact, bound = [], []
    for index, x in enumerate(inputs):
        weight = fit.weight.reshape(module.weight.shape)
        z = torch.nn.functional.conv2d(x, weight, padding=1) + fit.shift.reshape(-1, 1, 1)
        u = targets.slope * z + targets.offset
        if targets.shortcut is not None:
            u = u + targets.shortcut[index]
        dense = targets.dense_joined[index]
        exact.append((u.relu() - dense.relu()).square())
        bound.append(torch.where(dense > 0, u - dense, u.relu()).square())
    return [torch.cat(parts).mean(dim=(0, 2, 3)) for parts in (exact, bound)]


@settings(max_examples=10)
@given(st.integers(0, 999), st.booleans(), st.booleans(), st.floats(0.1, 0.9))
def test_refitting_never_raises_the_bound_on_what_passes_the_relu(
    seed, shortcut, negative, density
):
    torch.manual_seed(seed)
    module = nn.Conv2d(3, 4, 3, padding=1, bias=bool(seed % 2)).double()
    inputs = [torch.randn(3, 3, 6, 6, dtype=torch.float64) for _ in range(2)]
    layer = discover(nn.Sequential(module), inputs[0])[0]
    slope = torch.rand(4, 1, 1, dtype=torch.float64) + 0.3
    if negative:
        slope[0] *= -1
    offset = torch.randn(4, 1, 1, dtype=torch.float64) / 2
    with torch.no_grad():
        dense = [module(x) for x in inputs]
    right = [torch.randn_like(z) for z in dense]
    joined = [slope * z + offset + s * shortcut for z, s in zip(dense, right, strict=True)]
    wrong = [s + 0.3 * torch.randn_like(s) for s in right] if shortcut else None
    targets = Targets(dense, joined, wrong, slope, offset, torch.ones(4, 1, 1, dtype=torch.bool))
    mask = torch.rand(1, 4, 27) < density
    before = module.weight.detach().clone()
    bounds = []
    for refits in (0, 1, 2, 4):
        with torch.no_grad():
            module.weight.copy_(before)
        constants = FitSettings(ridge=1e-9, refits=refits)
        choice = Choice(int(mask.sum()), mask, GRADUAL)
        fit, _ = fit_layer(
            LayerInputs(nn.Sequential(module), layer, module, inputs),
            targets,
            choice,
            constants,
            relu=True,
        )
        assert torch.equal(fit.mask, mask)
        assert not fit.weight[~mask].any()
        exact, bound = errors_of(module, fit, inputs, targets)
        assert (exact <= bound * (1 + 1e-9)).all()
        bounds.append(bound)
    for earlier, later in pairwise(bounds):
        assert (later <= earlier * (1 + 1e-5) + 1e-9).all()
