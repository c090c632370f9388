"""How errors reach the output, against products of squared weights."""

import pytest
import torch
from torch import nn

from sparsemend import discover, models
from sparsemend.repairs.importance import channel_importance

from .networks import CHANNELS, conv_bn, randomise


def importance(model, x):
    layers = discover(model.eval(), x)
    found = channel_importance(model, layers)
    assert list(found) != []
    for layer in layers:
        assert found[layer.name].shape == (layer.rows,), layer.name
        assert found[layer.name].isfinite().all()
        assert (found[layer.name] >= 0).all()
    return found


def same_ratios(found, expected):
    """Only ratios within a layer are promised."""
    expected = expected.detach().double()
    torch.testing.assert_close(found / found.sum(), expected / expected.sum())


def test_two_linear_layers():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    found = importance(model, torch.randn(2, 4))
    same_ratios(found["0"], model[1].weight.square().sum(dim=0))
    same_ratios(found["1"], torch.ones(3))


@pytest.mark.parametrize("between", [nn.Identity, nn.ReLU])
def test_three_linear_layers(between):
    model = nn.Sequential(
        nn.Linear(4, 6), between(), nn.Linear(6, 5), between(), nn.Linear(5, 3, bias=False)
    )
    found = importance(model, torch.randn(2, 4))
    last = model[4].weight.square().sum(dim=0)
    same_ratios(found["2"], last)
    same_ratios(found["0"], last @ model[2].weight.square())


def test_norms_weigh_by_their_squared_slope():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.BatchNorm1d(6), nn.Linear(6, 3))
    randomise(model, 0)
    norm = model[2]
    slope = norm.weight.square() / (norm.running_var + norm.eps)
    same_ratios(
        importance(model, torch.randn(2, 4))["0"], slope * model[3].weight.square().sum(dim=0)
    )
    # In units of the normalised channel where the norm belongs to the layer.
    behind = nn.Sequential(model[0], model[2], model[3])
    found = importance(behind, torch.randn(2, 4))
    same_ratios(found["0"], model[3].weight.square().sum(dim=0))


def test_a_flattened_grid():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 9, 5))
    found = importance(model, torch.randn(2, 3, 5, 5))
    same_ratios(found["0"], model[2].weight.square().sum(dim=0).unflatten(0, (4, 9)).sum(dim=1))


@pytest.mark.parametrize("transposed", [False, True])
def test_grouped_convolutions_keep_to_their_group(transposed):
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    model = nn.Sequential(nn.Conv2d(3, 4, 1), kind(4, 6, 3, groups=2, bias=False))
    square = model[1].weight.detach().square()
    if transposed:  # stored as [inputs, outputs per group, ...]
        expected = square.sum(dim=(1, 2, 3))
    else:
        expected = square.unflatten(0, (2, 3)).sum(dim=(1, 3, 4)).flatten()
    same_ratios(importance(model, torch.randn(2, 3, 6, 6))["0"], expected)


def test_a_sum_passes_errors_to_both_operands():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.block, self.head = nn.Linear(4, 5), nn.Linear(5, 5), nn.Linear(5, 3)

        def forward(self, x):
            x = self.stem(x)
            return self.head(x + self.block(x))

    model = Residual()
    found = importance(model, torch.randn(2, 4))
    head = model.head.weight.square().sum(dim=0)
    same_ratios(found["block"], head)
    same_ratios(found["stem"], head + head @ model.block.weight.square())


def test_linear_layers_on_sequences():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
    found = importance(model, torch.randn(2, 7, 4))
    same_ratios(found["0"], model[2].weight.square().sum(dim=0))
    last = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 7, 5))
    assert importance(last, torch.randn(2, 7, 4))["0"].shape == (6,)


@pytest.mark.parametrize("norms", [("batch",), ("group",), ("none",)])
def test_norms_of_all_kinds(norms):
    importance(conv_bn(norms=norms), torch.randn(2, CHANNELS, 5, 5))


def test_layers_that_run_twice_and_tied_layers():
    twice = nn.Linear(5, 5)
    importance(nn.Sequential(nn.Linear(4, 5), twice, nn.ReLU(), twice), torch.randn(2, 4))
    tied = nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 5), nn.Linear(5, 2))
    tied[2].weight = tied[0].weight
    importance(tied, torch.randn(2, 5))


@pytest.mark.parametrize("name", models.names())
def test_every_layer_of_every_network_has_one_per_channel(name):
    model = models.create(name, width=4)
    shape = (2, 1, 8, 8) if name == "digits" else (2, 3, 32, 32)
    found = importance(model, torch.randn(shape))
    assert set(found) == set(discover(model, torch.randn(shape)).names)
    assert all(energy.any() for energy in found.values())


def test_weights_that_are_not_pruned_hand_nothing_on():
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 5), nn.Linear(5, 3)).eval()
    layers = discover(model, torch.randn(2, 4), exclude="1")
    found = channel_importance(model, layers)
    assert set(found) == {"0", "2"}
    assert len(set(found["0"].tolist())) == 1  # all channels count alike
