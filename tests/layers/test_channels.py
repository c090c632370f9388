"""Which layers make the same channels, whatever the names of their modules."""

from __future__ import annotations

import pytest
import torch
from tests.layers.residual import Residual
from torch import nn

import sparsemend as sm
from sparsemend.layers.channels import coupled_layers, find_channels


def coupled(model: nn.Module, **chosen: object) -> list[tuple[str, ...]]:
    layers = sm.discover(model.eval(), torch.randn(2, 3, 8, 8), **chosen)
    return coupled_layers(layers.graph, layers, layers.others)


def test_layers_that_meet_in_sums_keep_the_same():
    model = Residual()
    assert coupled(model) == [("stem", "down", "outer")]
    layers = sm.discover(model, torch.randn(2, 3, 8, 8), pattern="channel")
    together = {layer.name: layer.structure.coupled for layer in layers}
    assert together == dict.fromkeys(("stem", "down", "outer"), ("stem", "down", "outer")) | {
        "up": (), "inner": (),
    }  # fmt: skip
    flows = {tuple(x.makers): x for x in find_channels(layers.graph, (*layers, *layers.others))}
    assert flows["stem", "down", "outer"].readers == ["up", "inner", "last"]
    assert flows[("up",)].readers == ["down"]
    assert not flows[("last",)].removable


def test_a_depthwise_convolution_passes_them_on():
    middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.ReLU6())
    assert coupled(Residual(middle)) == [("stem", "down", "middle.0", "outer")]


class Gate(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(x)


@pytest.mark.parametrize(
    "middle",
    [
        nn.GroupNorm(2, 4),
        nn.PixelShuffle(1),
        Gate(),
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
    ],
)
def test_what_may_need_all_of_them_leaves_every_layer_alone(middle):
    assert ("stem", "down") not in coupled(Residual(middle))


def test_a_layer_that_stays_dense_leaves_the_others_alone():
    assert coupled(Residual(), exclude="down") == []


def test_without_inputs_nothing_is_known():
    layers = sm.discover(Residual(), pattern="channel")
    assert not any(layer.structure.coupled for layer in layers)


def test_a_layer_that_runs_twice_couples_what_it_makes():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
            self.last = nn.Linear(4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.two(x))
            x = x + torch.relu(self.one(torch.relu(self.one(x))))
            return self.last(x)

    layers = sm.discover(Twice(), torch.randn(3, 4))
    assert coupled_layers(layers.graph, layers) == [("two", "one")]
