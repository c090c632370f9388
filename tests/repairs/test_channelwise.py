"""What channelwise repairs promise about the network's own signals, and oracles by hand."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend import SparsemendWarning, repair

from .networks import (
    CHANNELWISE,
    conv_bn,
    images,
    layers_of,
    moments,
    networks,
    outputs,
    perceptron,
    prune_half,
    same_state,
    signals,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore:layers that got a bias"),
    pytest.mark.usefixtures("ample_evidence"),
]
SCOPES = ("sequential", "one-shot")
small = settings(max_examples=15)
cases = given(networks(), st.floats(0.2, 0.8), st.integers(0, 1000))


def repaired_signals(dense, fraction, seed, operator):
    """Layer → (layer, dense signal, repaired signal), and the pruned and repaired networks."""
    batches = list(images(20, seed, torch.float64).split(8))
    pruned = prune_half(dense, fraction)
    repaired = repair(pruned, dense, batches, operator, new_biases=True)
    layers = layers_of(dense, batches[0])
    ours, theirs = signals(repaired, layers, batches), signals(dense, layers, batches)
    return {x.name: (x, theirs[x.name], ours[x.name]) for x in layers}, pruned, repaired


def close_means(ours, theirs, variance):
    tolerance = 1e-9 + 1e-6 * float(variance.max().sqrt())
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=tolerance)


def live(variance):
    return variance > 1e-6 * variance.max()


@small
@cases
def test_variance_matches_mean_and_variance_of_every_layer(dense, fraction, seed):
    found, _, _ = repaired_signals(dense, fraction, seed, "variance")
    for _, z, ours in found.values():
        (mean, variance), (our_mean, our_variance) = moments(z), moments(ours)
        close_means(our_mean, mean, variance)
        alive = live(our_variance)
        torch.testing.assert_close(our_variance[alive], variance[alive], rtol=1e-3, atol=0)


@small
@cases
def test_affine_leaves_nothing_to_regress(dense, fraction, seed):
    found, _, _ = repaired_signals(dense, fraction, seed, "affine")
    for _, z, ours in found.values():
        (mean, variance), (our_mean, our_variance) = moments(z), moments(ours)
        close_means(our_mean, mean, variance)
        covariance = ((z - mean) * (ours - our_mean)).mean(dim=0)
        alive = live(our_variance)
        slope = covariance[alive] / our_variance[alive]
        torch.testing.assert_close(slope, torch.ones_like(slope), rtol=1e-5, atol=0)


@small
@cases
def test_layerwise_matches_the_total_variance_with_one_scale(dense, fraction, seed):
    found, pruned, repaired = repaired_signals(dense, fraction, seed, "layerwise")
    for layer, z, ours in found.values():
        (mean, variance), (our_mean, our_variance) = moments(z), moments(ours)
        close_means(our_mean, mean, variance)
        if our_variance.sum() > 1e-6 * variance.sum():
            assert float(our_variance.sum()) == pytest.approx(float(variance.sum()), rel=1e-3)
        before, after = (m.get_submodule(layer.name).weight for m in (pruned, repaired))
        ratios = (after / before)[before != 0]
        # A channel without variance shows nothing to scale and stays.
        ratios = ratios[(ratios - 1).abs() > 1e-9]
        torch.testing.assert_close(ratios, ratios[:1].expand_as(ratios))


@small
@cases
def test_mean_moves_means_and_keeps_weights(dense, fraction, seed):
    found, pruned, repaired = repaired_signals(dense, fraction, seed, "mean")
    for layer, z, ours in found.values():
        torch.testing.assert_close(ours.mean(dim=0), z.mean(dim=0))
        weights = (m.get_submodule(layer.name).weight for m in (pruned, repaired))
        assert torch.equal(*weights)


@pytest.mark.parametrize("scope", SCOPES)
@small
@given(dense=networks())
def test_none_changes_nothing(scope, dense):
    pruned = prune_half(dense)
    assert same_state(repair(pruned, dense, images(4), "none", scope=scope), pruned)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("operator", CHANNELWISE)
@settings(max_examples=4)
@given(dense=networks(), fraction=st.floats(0.2, 0.8))
def test_zeros_stay_zeros_and_kept_weights_stay(scope, operator, dense, fraction):
    pruned = prune_half(dense, fraction)
    x = images(16, dtype=torch.float64)
    repaired = repair(pruned, dense, x, operator, scope=scope)
    for layer in layers_of(dense, x):
        before, after = (m.get_submodule(layer.name).weight for m in (pruned, repaired))
        assert torch.equal(after != 0, before != 0)
        assert after.isfinite().all()


@pytest.mark.parametrize("scope", SCOPES)
def test_shrinkage_leaves_first_convolution_and_linear_layers_alone(scope):
    dense = conv_bn()
    pruned = prune_half(dense)
    repaired = repair(pruned, dense, images(), "shrinkage", scope=scope)
    # 0, 3, 6 are convolutions with their norms behind them, 11 is the classifier.
    for index in (0, 1, 11):
        assert same_state(repaired[index], pruned[index])
    for index in (3, 6):
        assert not torch.equal(repaired[index].weight, pruned[index].weight)
        assert not torch.equal(repaired[index + 1].running_mean, pruned[index + 1].running_mean)


def test_shrinkage_scales_lie_between_one_and_those_of_variance():
    dense = conv_bn()
    pruned, x = prune_half(dense), images()
    full = repair(pruned, dense, x, "variance", scope="one-shot")
    shrunk = repair(pruned, dense, x, "shrinkage", scope="one-shot")
    for index in (3, 6):
        kept = pruned[index].weight != 0
        gamma, g = ((m[index].weight / pruned[index].weight)[kept] for m in (full, shrunk))
        assert ((g - 1) * (gamma - g) >= -1e-6).all()
        assert (g - gamma).abs().max() > 1e-3


def by_hand(z, z_pruned):
    """g and h of the variance repair."""
    (mean, variance), (mean_pruned, variance_pruned) = moments(z), moments(z_pruned)
    g = (variance / variance_pruned).sqrt()
    return g, mean - g * mean_pruned


@pytest.mark.parametrize("scope", SCOPES)
def test_two_layers_by_hand(scope):
    dense = perceptron().double()
    pruned = prune_half(dense, 0.3)
    x = torch.randn(50, 6, dtype=torch.float64)
    repaired = repair(pruned, dense, list(x.split(20)), "variance", scope=scope)
    with torch.no_grad():
        z1, z1_pruned = dense[0](x), pruned[0](x)
        g1, h1 = by_hand(z1, z1_pruned)
        # The second layer of the pruned network sees repaired inputs only in sequence.
        inputs = g1 * z1_pruned + h1 if scope == "sequential" else z1_pruned
        g2, h2 = by_hand(dense[2](z1.relu()), pruned[2](inputs.relu()))
        for index, g, h in ((0, g1, h1), (2, g2, h2)):
            ours, before = repaired[index], pruned[index]
            torch.testing.assert_close(ours.weight.detach(), g.unsqueeze(1) * before.weight)
            torch.testing.assert_close(ours.bias.detach(), g * before.bias + h)


def test_scopes_agree_on_the_first_layer_alone():
    dense = conv_bn()
    pruned, x = prune_half(dense), images()
    ours, theirs = (repair(pruned, dense, x, "variance", scope=scope) for scope in SCOPES)
    assert same_state(ours[:2], theirs[:2])
    assert not torch.allclose(ours[3].weight, theirs[3].weight)


@pytest.mark.parametrize("operator", ["variance", "affine"])
def test_batches_may_be_cut_anywhere(operator):
    dense = conv_bn()
    pruned, x = prune_half(dense), images(20)
    whole = repair(pruned, dense, [x], operator)
    cut = repair(pruned, dense, [x[:1], x[1:14], x[14:]], operator)
    torch.testing.assert_close(cut.state_dict(), whole.state_dict(), rtol=1e-4, atol=1e-5)


class Twice(nn.Module):
    """A layer that runs twice in a forward pass, between two that run once."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.again, self.after = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        x = self.before(x).relu()
        return self.after(self.again(self.again(x).relu()).relu())


class Tied(Twice):
    """The same with two modules that share a weight and have their own biases."""

    def __init__(self) -> None:
        super().__init__()
        self.other = nn.Linear(6, 6)
        self.other.weight = self.again.weight

    def forward(self, x):
        x = self.before(x).relu()
        return self.after(self.other(self.again(x).relu()).relu())


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("kind", [Twice, Tied])
def test_repeated_layers_pool_their_calls(kind, scope):
    torch.manual_seed(0)
    dense = kind().double()
    pruned, x = prune_half(dense, 0.3), torch.randn(40, 6, dtype=torch.float64)
    repaired = repair(pruned, dense, list(x.split(15)), "variance", scope=scope)
    ours, theirs = outputs(pruned, [x]), outputs(dense, [x])
    paths = [name for name in ("again", "other") if name in ours]
    pooled = [torch.cat([z for name in paths for z in seen[name]]) for seen in (theirs, ours)]
    assert len(pooled[0]) == 80
    g, h = by_hand(*pooled)
    for name in paths:
        new, old = repaired.get_submodule(name), pruned.get_submodule(name)
        torch.testing.assert_close(new.weight.detach(), g.unsqueeze(1) * old.weight.detach())
        torch.testing.assert_close(new.bias.detach(), g * old.bias.detach() + h)
    if scope == "sequential":  # what runs once is repaired after it, and for it
        z, z_repaired = (outputs(model, [x])["after"][0] for model in (dense, repaired))
        torch.testing.assert_close(moments(z_repaired), moments(z), rtol=1e-5, atol=1e-8)


class Branches(nn.Module):
    """A shortcut with a projection, registered last and run first."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.norm = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)
        self.shortcut = nn.Conv2d(4, 6, 1)

    def forward(self, x):
        return self.head((self.shortcut(x) + self.norm(self.main(x))).relu().mean(dim=(2, 3)))


def test_branches_are_repaired_before_what_joins_them():
    torch.manual_seed(0)
    dense = Branches().double().eval()
    x = images(dtype=torch.float64)
    repaired = repair(prune_half(dense), dense, x, "variance")
    layers = layers_of(dense, x)
    assert [layer.name for layer in layers] == ["shortcut", "main", "head"]
    ours, theirs = signals(repaired, layers, [x]), signals(dense, layers, [x])
    for name in theirs:
        expected, found = moments(theirs[name]), moments(ours[name])
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("operator", ["variance", "shrinkage", "affine"])
def test_kept_weights_on_silent_inputs_are_neither_erased_nor_blown_up(operator):
    # Channel 1 is silent on the calibration images. Output 0 sees nothing else even in the
    # dense network, output 1 after pruning.
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=2, bias=False))
    x = images()
    with torch.no_grad():
        model[0].weight[1] = 0
        model[0].bias[1] = 0
        model[1].weight[0, 0] = 0
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        pruned[1].weight[0, 0] = 0
        pruned[1].weight[1, 0] = 0
    with pytest.warns(SparsemendWarning, match=r"got a bias parameter: 1$"):
        repaired = repair(pruned, model, x, operator, new_biases=True)
    assert torch.equal(repaired[1].weight[:2], pruned[1].weight[:2])
    assert (repaired[1].weight != 0).sum() == (pruned[1].weight != 0).sum()


def test_half_precision_uses_wide_statistics():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(8, 4)).bfloat16()
    pruned = prune_half(dense, 0.3)
    x = (torch.randn(600, 8) + 3).bfloat16()
    repaired = repair(pruned, dense, list(x.split(100)), "variance")
    with torch.no_grad():
        g, h = by_hand(dense(x).double(), pruned(x).double())
    weight, bias = pruned[0].weight.detach(), pruned[0].bias.detach()
    expected = (weight.float() * g.float().unsqueeze(1)).bfloat16()
    torch.testing.assert_close(repaired[0].weight.detach(), expected)
    torch.testing.assert_close(repaired[0].bias.detach(), (bias.double() * g + h).bfloat16())
    assert {p.dtype for p in repaired.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("formula", ["variance", "affine", "shrinkage+batchnorm", "batchnorm-ema"])
def test_half_precision_networks_run_as_they_are(formula):
    dense = conv_bn().bfloat16()
    repaired = repair(prune_half(dense), dense, images(), formula)
    assert {p.dtype for p in repaired.parameters()} == {torch.bfloat16}
    for norm in (m for m in repaired.modules() if isinstance(m, _BatchNorm)):
        assert norm.running_mean.isfinite().all()
        assert (norm.running_var > 0).all()
