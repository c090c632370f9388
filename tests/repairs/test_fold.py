"""Folding g and h into parameters: the network's outputs are g z' + h, whatever the layer."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsemend.layers import discover
from sparsemend.repairs.fold import fold

from .networks import randomise, same_state


def channels_first(values, dims):
    return values.reshape(-1, *[1] * dims)


@st.composite
def cases(draw):
    """A layer of any kind alone in a network, inputs for it, and a scale and shift."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    bias, groups = draw(st.booleans()), draw(st.sampled_from((1, 2, 4)))
    per_group, count = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dims = draw(st.integers(0, 3))
    inputs, outputs = groups * per_group, groups * count
    if dims == 0:
        layer = nn.Linear(inputs, outputs, bias)
    else:
        transposed = draw(st.booleans())
        plain = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
        other = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 1]
        layer = (other if transposed else plain)(inputs, outputs, 2, groups=groups, bias=bias)
    x = torch.randn(2, inputs, *[3] * dims, dtype=torch.float64)
    scale = torch.randn(outputs, dtype=torch.float64) if draw(st.booleans()) else None
    return nn.Sequential(layer).double(), x, scale, torch.randn(outputs, dtype=torch.float64)


@settings(max_examples=60)
@given(cases())
def test_output_is_scaled_and_shifted(case):
    model, x, scale, shift = case
    with torch.no_grad():
        before = model(x)
        had_bias = model[0].bias is not None
        added = fold(model, discover(model, x)[0], scale, shift)
        dims = before.dim() - 2
        g = 1 if scale is None else channels_first(scale, dims)
        torch.testing.assert_close(model(x), g * before + channels_first(shift, dims))
    assert added == ([] if had_bias else ["0"])


@given(st.integers(0, 1000))
def test_existing_bias(seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 3)).double()
    old = model[0].bias.detach().clone()
    g, mean_dense, mean_pruned = torch.randn(3, 3, dtype=torch.float64)
    x = torch.randn(2, 4, dtype=torch.float64)
    fold(model, discover(model, x)[0], g, mean_dense - g * mean_pruned)
    torch.testing.assert_close(model[0].bias.detach(), g * old + mean_dense - g * mean_pruned)


@pytest.mark.parametrize("scaled", [True, False])
@given(seed=st.integers(0, 1000))
def test_shift_of_a_layer_without_bias_goes_into_the_running_mean(scaled, seed):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4)).double()
    model = randomise(model, seed)
    norm, old = model[1], copy.deepcopy(model)
    x = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    g = torch.randn(4, dtype=torch.float64) if scaled else None
    h = torch.randn(4, dtype=torch.float64)
    with torch.no_grad():
        assert fold(model, discover(model, x)[0], g, h) == []
        z = old[0](x)
        shifted = (1 if g is None else channels_first(g, 2)) * z + channels_first(h, 2)
        torch.testing.assert_close(model(x), old[1](shifted))
    torch.testing.assert_close(norm.running_mean, old[1].running_mean - h)
    for name in ("weight", "bias", "running_var"):
        assert torch.equal(getattr(norm, name), getattr(old[1], name))
    assert model.state_dict().keys() == old.state_dict().keys()


def test_a_layer_with_bias_leaves_its_batchnorm_alone():
    model = randomise(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), 0)
    old, x = copy.deepcopy(model), torch.randn(2, 3, 5, 5)
    fold(model, discover(model, x)[0], torch.rand(4), torch.ones(4))
    assert same_state(model[1], old[1])
    assert not torch.equal(model[0].bias, old[0].bias)


def test_batchnorm_without_running_statistics_needs_no_shift():
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm)
    old, x = copy.deepcopy(model), torch.randn(2, 3, 5, 5)
    assert fold(model, discover(model, x)[0], None, torch.ones(4)) == []
    assert same_state(model, old)


@pytest.mark.parametrize("norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.Identity()])
def test_other_norms_get_a_layer_with_a_new_bias(norm):
    model = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), norm)
    x, h = torch.randn(2, 3, 5, 5), torch.randn(4)
    assert fold(model, discover(model, x)[0], None, h) == ["0"]
    assert torch.equal(model[0].bias, h)
    assert isinstance(model[0].bias, nn.Parameter)
    assert "0.bias" in model.state_dict()


class Tied(nn.Module):
    """Two linear layers with one weight; ``reverse`` runs them against registration order."""

    def __init__(self, bias: bool = True, share_bias: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(5, 5, bias)
        self.second = nn.Linear(5, 5, bias)
        self.second.weight = self.first.weight
        if share_bias:
            self.second.bias = self.first.bias

    def forward(self, x):
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("share_bias", [True, False])
def test_tied_layers_scale_once_and_shift_each_bias_once(share_bias):
    torch.manual_seed(0)
    model, x = Tied(share_bias=share_bias), torch.randn(3, 5)
    old = copy.deepcopy(model)
    g, h = torch.rand(5) + 0.5, torch.randn(5)
    assert fold(model, discover(model, x)[0], g, h) == []
    with torch.no_grad():
        for name in ("first", "second"):
            ours, before = model.get_submodule(name), old.get_submodule(name)
            torch.testing.assert_close(ours(x), g * before(x) + h)
    assert model.first.weight is model.second.weight
    assert (model.first.bias is model.second.bias) == share_bias


def test_tied_layers_without_bias_get_one_each():
    model, x = Tied(bias=False), torch.randn(3, 5)
    assert fold(model, discover(model, x)[0], None, torch.ones(5)) == ["first", "second"]
    assert torch.equal(model.second.bias, torch.ones(5))


def test_half_precision_is_rounded_once():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3)).bfloat16()
    old, x = copy.deepcopy(model), torch.randn(2, 4)
    g, h = torch.rand(3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    fold(model, discover(model, x)[0], g, h)
    weight, bias = old[0].weight.detach(), old[0].bias.detach()
    expected = (weight.float() * g.float().unsqueeze(1)).bfloat16()
    assert torch.equal(model[0].weight.detach(), expected)
    assert torch.equal(model[0].bias.detach(), (bias.double() * g + h).bfloat16())


def test_pruned_weights_are_never_negative_zeros():
    model = nn.Sequential(nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[:, 1] = 0
    fold(model, discover(model)[0], torch.tensor([-1.0, 2.0]), torch.zeros(2))
    assert not model[0].weight[:, 1].signbit().any()
