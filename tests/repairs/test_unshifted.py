"""Layers that cannot be shifted: closed forms about zero, networks that keep their parameters."""

import copy
import dataclasses
import functools

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.calibration import OutputStatistics
from sparsemend.masks.gradual import GRADUAL
from sparsemend.operators import OPERATORS
from sparsemend.repairs import FitSettings, Support, Terms, parse_repair, unshiftable
from sparsemend.repairs.fit import Choice, LayerInputs, fit_layer
from sparsemend.repairs.reconstruction import reconstruct
from sparsemend.session import Session

from .networks import conv_bn, images, prune_half, same_state
from .test_fit import MODULES, case, columns_and_targets, dense_targets

CHANNELWISE = ("mean", "variance", "layerwise", "shrinkage", "affine")
SCOPES = ("sequential", "one-shot")
BIASED = [kind for kind in MODULES if kind != "grouped"]


def paired(seed=0):
    """Outputs of a layer before and after pruning, with means, and their statistics."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(200, 4, generator=generator, dtype=torch.float64) + torch.arange(4.0)
    pruned = 0.6 * z + 0.3 * torch.randn(z.shape, generator=generator, dtype=torch.float64) - 0.2
    (variance, mean), (after, _), (left, error) = (
        torch.var_mean(t, dim=0, correction=0) for t in (z, pruned, pruned - z)
    )
    return z, pruned, OutputStatistics(mean, variance, after, error, left)


def test_uncentred_statistics_are_second_moments_about_zero():
    z, pruned, statistics = paired()
    found = statistics.uncentred()
    assert not found.dense_mean.any()
    assert not found.pruned_mean.any()
    torch.testing.assert_close(found.dense_variance, z.square().mean(dim=0))
    torch.testing.assert_close(found.pruned_variance, pruned.square().mean(dim=0))
    torch.testing.assert_close(found.error_variance, (pruned - z).square().mean(dim=0))
    torch.testing.assert_close(found.covariance, (z * pruned).mean(dim=0))


@pytest.mark.parametrize("name", CHANNELWISE)
def test_residuals_are_what_a_scale_alone_leaves(name):
    z, pruned, statistics = paired()
    statistics = statistics.uncentred()
    scale = OPERATORS[name].scale(statistics)
    expected = (scale * pruned - z).square().mean(dim=0)
    torch.testing.assert_close(OPERATORS[name].residual(statistics), expected)
    if name == "affine":
        for other in (0.99, 1.01):
            assert ((other * scale * pruned - z).square().mean(dim=0) > expected).all()


@pytest.mark.parametrize("kind", MODULES)
def test_a_fit_without_a_shift_is_least_squares_through_the_origin(kind):
    module, layer, inputs = case(kind)
    module.bias = None
    layer = sm.discover(nn.Sequential(module), inputs[0])[0]
    targets = dense_targets(module, inputs)
    targets = dataclasses.replace(targets, dense=[t + 0.7 for t in targets.dense])
    mask = torch.rand(layer.groups, layer.rows // layer.groups, layer.fan_in) < 0.4
    fit, covariance = fit_layer(
        LayerInputs(nn.Sequential(module), layer, module, inputs, shifted=False),
        targets,
        Choice(0, mask, GRADUAL),
        FitSettings(ridge=1e-12),
    )
    x, z = columns_and_targets(module, layer, inputs, targets.dense)
    torch.testing.assert_close(covariance.scale, x.square().mean(dim=1).sqrt())
    assert not fit.shift.any()
    assert not fit.weight[~mask].any()
    for g in range(layer.groups):
        for r in range(z.shape[2]):
            kept = mask[g, r]
            expected = torch.linalg.lstsq(x[g][:, kept], z[g, :, r].unsqueeze(1)).solution
            torch.testing.assert_close(
                fit.weight[g, r, kept], expected.squeeze(1), rtol=1e-5, atol=1e-7
            )


@pytest.mark.parametrize("kind", BIASED)
def test_a_bias_that_cannot_move_is_taken_off_the_targets(kind):
    module, layer, inputs = case(kind)
    targets = dense_targets(module, inputs)
    dense, bias = module.weight.detach().clone(), module.bias.detach().clone()
    fit, _ = fit_layer(
        LayerInputs(nn.Sequential(module), layer, module, inputs, shifted=False),
        targets,
        Choice(layer.size, None, GRADUAL),
        FitSettings(ridge=1e-10),
    )
    torch.testing.assert_close(fit.shift, bias)
    columns, z = columns_and_targets(module, layer, inputs, targets.dense)
    found = columns @ fit.weight.mT + fit.shift.unflatten(0, (layer.groups, -1)).unsqueeze(1)
    torch.testing.assert_close(found, z, rtol=1e-5, atol=1e-5)
    assert fit.weight.numel() == dense.numel()


@pytest.mark.parametrize("pooled", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_fits_without_a_shift_never_make_their_own_error_worse(relu, pooled):
    module, layer, inputs = case("convolution")
    module.requires_grad_(False).bias = None
    layer = sm.discover(nn.Sequential(module), inputs[0])[0]
    targets = dense_targets(module, inputs)
    mask = torch.rand(1, layer.rows, layer.fan_in) < 0.4
    pruned = module.weight.detach().reshape(mask.shape) * mask
    fit, _ = fit_layer(
        LayerInputs(nn.Sequential(module), layer, module, inputs, shifted=False),
        targets,
        Choice(0, mask, GRADUAL),
        FitSettings(ridge=1e-10),
        relu=relu,
        pooled=pooled,
    )
    x, z = columns_and_targets(module, layer, inputs, targets.dense)
    link = torch.relu if relu else lambda t: t
    count = sum(map(len, inputs))

    def error(weight):
        left = link(x @ weight.mT) - link(z)
        if not pooled:
            return float(left.square().mean())
        positions = left.shape[1] // count
        means = left.unflatten(1, (count, -1)).mean(dim=2)
        return float(left.square().mean() + 0.1 * positions * means.square().mean())

    assert error(fit.weight) < error(pruned)


def bias_free(width=8):
    """Linear layers without biases, of which none is followed by a norm."""
    layers = [nn.Linear(6, width), nn.ReLU(), nn.Linear(width, width), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(width, 5)).double().eval()
    for module in model:
        if isinstance(module, nn.Linear):
            module.bias = None
    return model.requires_grad_(False)


def linear_outputs(model, x):
    found = []
    with torch.no_grad():
        for module in model:
            x = module(x)
            if isinstance(module, nn.Linear):
                found.append(x)
    return found


@pytest.fixture
def pair():
    torch.manual_seed(0)
    dense, x = bias_free(), torch.randn(300, 6, dtype=torch.float64) + 0.5
    return dense, prune_half(dense, 0.4), list(x.split(100))


def test_variance_matches_second_moments(pair):
    dense, pruned, batches = pair
    repaired, x = sm.repair(pruned, dense, batches, "variance"), torch.cat(batches)
    for z, ours in zip(linear_outputs(dense, x), linear_outputs(repaired, x), strict=True):
        torch.testing.assert_close(
            ours.square().mean(dim=0), z.square().mean(dim=0), rtol=1e-6, atol=0
        )


def test_affine_is_a_regression_through_the_origin(pair):
    dense, pruned, batches = pair
    repaired, x = sm.repair(pruned, dense, batches, "affine"), torch.cat(batches)
    for z, ours in zip(linear_outputs(dense, x), linear_outputs(repaired, x), strict=True):
        torch.testing.assert_close((z * ours).mean(dim=0), ours.square().mean(dim=0))


@pytest.mark.parametrize("scope", SCOPES)
def test_mean_does_nothing_there(pair, scope):
    dense, pruned, batches = pair
    assert same_state(sm.repair(pruned, dense, batches, "mean", scope=scope), pruned)


def test_reconstruction_is_sequential_least_squares(pair):
    dense, pruned, batches = pair
    model = copy.deepcopy(pruned)
    masks = sm.find_masks(pruned)
    support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
    session = Session(dense, batches)
    settings = FitSettings(ridge=1e-12, refits=0, logit_refits=0)
    outcome = reconstruct(session, model, support, settings)
    assert outcome.unshifted == ("0", "2", "4") == unshiftable(dense, session.layers)
    assert outcome.added_biases == ()
    x = torch.cat(batches)
    with torch.no_grad():
        for index, z in zip((0, 2, 4), linear_outputs(dense, x), strict=True):
            inputs = model[:index](x)
            for row, mask in enumerate(masks[str(index)]):
                expected = torch.linalg.lstsq(inputs[:, mask], z[:, row : row + 1]).solution
                torch.testing.assert_close(
                    model[index].weight[row, mask], expected.flatten(), rtol=1e-5, atol=1e-6
                )


def test_refits_of_logits_without_a_shift_come_closer(pair):
    dense, pruned, batches = pair
    masks = sm.find_masks(pruned)
    support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
    kls = []
    for refits in (0, 20):
        model = copy.deepcopy(pruned)
        settings = FitSettings(ridge=1e-12, logit_refits=refits)
        reconstruct(Session(dense, batches), model, support, settings)
        kls.append(sm.agreement(model, dense, batches).kl)
    assert kls[1] < kls[0]


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize("formula", [*CHANNELWISE, "reconstruct", "affine+batchnorm-ema"])
def test_where_every_shift_has_a_place_nothing_is_different(formula):
    dense, batches = conv_bn(), list(images(80).split(40))
    pruned = prune_half(dense)
    plain, more = (
        sm.repair(pruned, dense, batches, formula, new_biases=asked) for asked in (False, True)
    )
    assert same_state(plain, more)


def test_new_biases_match_means_as_well(pair):
    dense, pruned, batches = pair
    x = torch.cat(batches)
    with pytest.warns(sm.SparsemendWarning, match="got a bias parameter: 0, 2, 4"):
        repaired = sm.repair(pruned, dense, batches, "variance", new_biases=True)
    for z, ours in zip(linear_outputs(dense, x), linear_outputs(repaired, x), strict=True):
        for found, wanted in zip(
            torch.var_mean(ours, dim=0), torch.var_mean(z, dim=0), strict=True
        ):
            torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)


class Tied(nn.Module):
    """One weight in two modules, of which one has a bias."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(5, 5), nn.Linear(5, 5, bias=False)
        self.second.weight = self.first.weight

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("formula", ["variance", "affine", "reconstruct"])
@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_tied_layers_are_shifted_together_or_not_at_all(formula):
    torch.manual_seed(0)
    dense, x = Tied().eval(), torch.randn(60, 5)
    pruned, session = prune_half(dense), Session(dense, [x])
    masks = sm.find_masks(pruned)
    support = Support({name: int(mask.sum()) for name, mask in masks.items()}, masks)
    model = copy.deepcopy(pruned)
    outcome = parse_repair(formula).run(session, model, Terms(support))
    assert outcome.unshifted == ("first",)
    assert model.first.weight is model.second.weight
    assert model.second.bias is None
    Tied().load_state_dict(model.state_dict(), strict=True)
    if formula == "reconstruct":
        assert torch.equal(model.first.bias, dense.first.bias)


# Networks as users have them


class PreNorm(nn.Module):
    """A transformer block: norms in front of layers without biases."""

    def __init__(self, norm=nn.LayerNorm):
        super().__init__()
        linear = functools.partial(nn.Linear, bias=False)
        self.norm1, self.norm2, self.last = norm(12), norm(12), norm(12)
        self.query, self.key, self.value, self.out = (linear(12, 12) for _ in range(4))
        self.up, self.gate, self.down, self.head = (
            linear(12, 24), linear(12, 24), linear(24, 12), linear(12, 5)
        )  # fmt: skip

    def forward(self, x):
        y = self.norm1(x)
        heads = [f(y).unflatten(2, (2, 6)).transpose(1, 2) for f in (self.query, self.key)]
        value = self.value(y).unflatten(2, (2, 6)).transpose(1, 2)
        mixed = (heads[0] @ heads[1].mT / 6**0.5).softmax(dim=-1) @ value
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        y = self.norm2(x)
        x = x + self.down(torch.nn.functional.silu(self.gate(y)) * self.up(y))
        return self.head(self.last(x).mean(dim=1))


class ScaleOnly(nn.Module):
    """The norm of T5: no mean is taken off, none is added."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.weight * x * x.square().mean(dim=-1, keepdim=True).add(1e-6).rsqrt()


def grouped_norms():
    """As in BiT: norms of groups in front of convolutions without biases."""
    block = [nn.GroupNorm(2, 8), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1, bias=False)]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5, bias=False)]
    return nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, bias=False), *block, *head)


NETWORKS = {
    "pre-norm": (PreNorm, (7, 12)),
    "like T5": (lambda: PreNorm(ScaleOnly), (7, 12)),
    "like BiT": (grouped_norms, (4, 6, 6)),
}


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize("repair", ["variance", "affine", "reconstruct", "best"])
@pytest.mark.parametrize("kind", NETWORKS)
def test_results_load_into_the_untouched_architecture(kind, repair):
    make, shape = NETWORKS[kind]
    torch.manual_seed(0)
    dense, x = make().eval(), torch.randn(60, *shape)
    result = sm.compress(dense, list(x.split(20)), 0.5, "erk", repair=repair)
    fresh = make().eval()
    fresh.load_state_dict(result.model.state_dict(), strict=True)
    with torch.no_grad():
        assert torch.equal(fresh(x), result.model(x))
    assert result.added_biases == ()
    assert result.unshifted
    if repair in ("reconstruct", "best"):
        pruned = sm.prune(dense, result.allocation)
        assert result.agreement.kl < sm.agreement(pruned, dense, x).kl


class Elsewhere(nn.Module):
    """Its matrices are multiplied with where no module would add a bias."""

    def __init__(self):
        super().__init__()
        self.ran = nn.Linear(6, 6, bias=False)
        self.held, self.last = nn.Linear(6, 6, bias=False), nn.Linear(6, 4)

    def forward(self, x):
        x = torch.relu(nn.functional.linear(self.ran(x), self.held.weight))
        return self.last(x)


@pytest.mark.parametrize("repair", ["variance", "reconstruct"])
def test_only_a_module_that_runs_gets_a_bias(repair):
    torch.manual_seed(0)
    model = Elsewhere().eval()
    x = torch.randn(64, 6)
    assert [layer.takes_bias for layer in sm.discover(model, x)] == [True, False, True]
    done = sm.compress(model, x, 0.5, "uniform", repair=repair, new_biases=True)
    assert done.added_biases == ("ran",)
    assert done.unshifted == ("held",)
    assert done.model.held.bias is None
