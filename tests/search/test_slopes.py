"""Slopes against numeric derivatives, and the step that follows from them against its optimum."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.repairs.networks import conv_bn, images, perceptron, same_state
from torch import nn

from sparsemend.allocation import WeightQuota
from sparsemend.evaluation import JUDGES
from sparsemend.layers import discover, layer_weights
from sparsemend.search.slopes import Marginal, density_slopes, downhill, margins
from sparsemend.session import Session


def quota(sizes):
    return WeightQuota.exactly(sizes, 1)


def damaged(dense, seed=0):
    """A copy whose weights were pruned and refitted by chance, and what is at the margin."""
    generator = torch.Generator().manual_seed(seed)
    model, marginal = copy.deepcopy(dense), {}
    modules = dict(model.named_modules())
    for layer in discover(dense):
        weight = modules[layer.name].weight
        marginal[layer.name] = torch.rand(weight.shape, generator=generator) < 0.4
        with torch.no_grad():
            weight.mul_(1.1 * (torch.rand(weight.shape, generator=generator) < 0.6))
    return model, marginal


def distance(model, dense, batches, restored, original, unshifted=()):
    """KL after restoring, batch by batch, the statistics that the original has."""
    model = copy.deepcopy(model).eval()
    for module in model.modules():
        if restored == "norms" and isinstance(module, nn.BatchNorm2d):
            module.train()
    if restored == "layers":
        restore(model, original, unshifted)
    with torch.no_grad():
        total = sum(float(JUDGES["kl"].loss(dense(x), model(x)).sum()) for x in batches)
    return total / sum(map(len, batches))


def restore(model, original, unshifted=()):
    """Outputs of all layers get mean and variance of those of another network, or E z² alone."""
    original = copy.deepcopy(original).eval()
    aims, modules = {}, dict(model.named_modules())
    for layer in discover(model):
        twin = dict(original.named_modules())[layer.name]

        def note(_, __, z, name=layer.name):
            aims[name] = moments(z, name not in unshifted)

        def match(_, __, z, name=layer.name):
            (mean, spread), (aim, aimed) = moments(z, name not in unshifted), aims[name]
            return aim + aimed * (z - mean) / spread

        twin.register_forward_hook(note)
        modules[layer.name].register_forward_hook(match)

    def first(_, args):
        original(*args)

    model.register_forward_pre_hook(first)


def moments(z, about_mean=True):
    dims = [d for d in range(z.dim()) if d != 1]
    if not about_mean:
        return 0.0, z.square().mean(dims, keepdim=True).sqrt()
    return z.mean(dims, keepdim=True), z.var(dims, correction=0, keepdim=True).sqrt()


def shifted(model, dense, layer, marginal, step):
    moved = copy.deepcopy(model)
    weight = dict(moved.named_modules())[layer.name].weight
    with torch.no_grad():
        weight += step * layer_weights(dense, [layer])[layer.name] * marginal[layer.name]
    return moved


def grouped():
    torch.manual_seed(0)
    first = nn.Conv2d(4, 8, 3, groups=4, bias=False)
    return nn.Sequential(
        first, nn.BatchNorm2d(8), nn.ReLU(True), nn.Flatten(), nn.Linear(72, 5)
    ).eval()


NETWORKS = {"plain": conv_bn, "grouped, in place": grouped, "linear": perceptron}


@pytest.mark.parametrize(
    ("name", "restored", "unshifted"),
    [
        ("plain", "nothing", ()),
        ("plain", "norms", ()),
        ("plain", "layers", ()),
        ("plain", "layers", ("3", "11")),
        ("grouped, in place", "norms", ()),
        ("grouped, in place", "layers", ()),
        ("linear", "nothing", ()),
        ("linear", "layers", ()),
        ("linear", "layers", ("0", "2")),
    ],
)
def test_slopes_are_derivatives_along_the_dense_values_at_the_margin(name, restored, unshifted):
    dense = NETWORKS[name]().double()
    x = torch.randn(20, 6) if name == "linear" else images(20)
    batches = list(x.double().split([8, 8, 4]))
    model, marginal = damaged(dense)
    layers = discover(dense, batches[0])
    ratios = [2.0 + i for i in range(len(layers))]
    model.train()
    dense.get_submodule("1").train()
    before = copy.deepcopy(model), copy.deepcopy(dense)
    flags = [m.training for net in (model, dense) for m in net.modules()]
    found = density_slopes(
        Session(dense, batches),
        model,
        Marginal(marginal, ratios),
        restored=restored,
        unshifted=unshifted,
    )
    assert [m.training for net in (model, dense) for m in net.modules()] == flags
    assert same_state(model, before[0])
    assert same_state(dense, before[1])
    assert all(p.grad is None and p.requires_grad for p in (*model.parameters(),))
    dense.eval()
    for layer, ratio, slope in zip(layers, ratios, found, strict=True):
        ends = [
            distance(
                shifted(model, dense, layer, marginal, step),
                dense,
                batches,
                restored,
                model,
                unshifted,
            )
            for step in (1e-5, -1e-5)
        ]
        assert slope * np.log(ratio) == pytest.approx((ends[0] - ends[1]) / 2e-5, abs=1e-7)
        assert slope != 0


def measure(dense, batches, restored="norms", ratio=2.0):
    model, marginal = damaged(dense)
    layers = discover(dense, images(2))
    ratios = [ratio] * len(layers)
    return density_slopes(
        Session(dense, batches), model, Marginal(marginal, ratios), restored=restored
    )


def test_single_inputs_have_no_statistics():
    dense, pair, single = conv_bn(), images(6), images(1, 1)
    with_single = measure(dense, [pair, single])
    np.testing.assert_array_equal(with_single, measure(dense, [pair]))
    assert measure(dense, [single]) is None
    assert measure(dense, [single], "nothing") is not None
    assert measure(dense, [single], "layers") is not None


def test_a_layer_without_a_margin_has_no_slope():
    assert not measure(conv_bn(), [images(6)], ratio=1.0).any()


class Closed(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = conv_bn()

    @torch.no_grad()
    def forward(self, x):
        return self.inner(x)


class InPlace(nn.Module):
    """Changes in place what the gradient of the exponential needs."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return self.body(x).exp().add_(1)


def test_no_gradient_is_no_slopes():
    assert measure(Closed(), [images(6)]) is None
    broken = conv_bn()
    nn.init.constant_(broken[-1].weight, 3e38)
    assert measure(broken, [images(6)]) is None
    assert measure(InPlace(conv_bn()), [images(6)]) is None


def test_constant_channels_do_no_harm():
    dense = conv_bn()
    nn.init.zeros_(dense[0].weight[2])
    assert np.isfinite(measure(dense, [images(6)], "layers")).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_dtypes(dtype):
    dense = conv_bn()
    expected = measure(dense, [images(12)])
    found = measure(conv_bn().to(dtype), [images(12).to(dtype)])
    near = 0.1 if dtype == torch.bfloat16 else 1e-4
    assert np.abs(found - expected).max() < near * np.abs(expected).max()


counted = st.lists(
    st.tuples(st.integers(1, 500), st.integers(0, 500)).map(lambda t: (t[0], t[0] + t[1])),
    min_size=2,
    max_size=8,
)


@given(counted)
def test_margins_lie_around_the_counts(layers):
    counts, sizes = zip(*layers, strict=True)
    below, above = margins(counts, sizes)
    for less, count, more, size in zip(below, counts, above, sizes, strict=True):
        assert 1 <= less <= count <= more <= size
        assert less in (1, int(count / 1.5))
        assert more == size or count * 1.5 <= more < count * 1.5 + 1


@given(counted, st.integers(0, 1000), st.sampled_from([0.05, 0.4]))
def test_a_step_is_the_steepest_that_keeps_the_budget(layers, seed, radius):
    counts, sizes = (np.array(values, dtype=float) for values in zip(*layers, strict=True))
    slopes = np.random.default_rng(seed).normal(size=len(counts))
    change = downhill(slopes, counts, quota(sizes), radius)
    share = counts / counts.sum()
    free = (counts < sizes) | (change != 0)
    if free.sum() < 2:
        assert np.abs(change).max() in (0, pytest.approx(radius))
        return
    assert np.abs(change).max() == pytest.approx(radius)
    assert abs(share @ change) < 1e-9
    assert slopes @ change < 0
    # The optimum: what is left of the slope is the price of a weight, the same in all layers.
    inertia = np.maximum(share, 3 / len(share))
    scale = -(slopes @ change) / (inertia @ change**2)
    price = (slopes + scale * inertia * change)[free] / share[free]
    assert np.ptp(price) <= 1e-6 * np.abs(price).max() + 1e-9


def test_dense_layers_gain_nothing():
    change = downhill(np.array([-5.0, -1.0, 1.0]), (100, 50, 50), quota((100, 100, 100)), 0.4)
    assert change[0] == 0
    assert change[1] == pytest.approx(0.4)
    assert change[2] == pytest.approx(-0.4)


def test_where_all_is_level_there_is_no_step():
    assert not downhill(np.zeros(3), (10, 20, 30), quota((99, 99, 99)), 0.4).any()
