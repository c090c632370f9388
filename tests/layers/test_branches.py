"""Residual branches are found in the graph, whatever modules are called."""

import torch
from torch import nn

import sparsemend as sm
from sparsemend import models
from sparsemend.layers import residual_branches


def found(model, batch):
    return [branch.layers for branch in residual_branches(sm.discover(model, batch))]


def test_of_a_residual_network():
    model = models.create("cifar_resnet20")
    layers = sm.discover(model, torch.randn(2, 3, 32, 32))
    branches = residual_branches(layers)
    assert [branch.layers[0].removesuffix(".conv1") for branch in branches] == [
        f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)
    ]
    # The main path is the branch, the projection the shortcut.
    assert branches[3].layers == ("layer2.0.conv1", "layer2.0.conv2")


class Joined(nn.Module):
    """Sums of all kinds, of which only those with a shorter way beside them have a branch."""

    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleDict({name: nn.Linear(6, 6) for name in "abcdefghi"})

    def forward(self, x):
        part = self.parts
        x = part["a"](x)
        x = x + part["c"](part["b"](x).relu())
        x = part["d"](x) + part["e"](x)  # neither is a shortcut of the other
        inner = part["f"](x)
        x = x + part["g"](inner)
        seen_twice = part["h"](x + inner)  # what is in the branch of g goes on to here
        return part["i"](x + seen_twice)


def test_only_where_a_shorter_way_runs_beside_it_and_nothing_else_sees_it():
    assert found(Joined(), torch.randn(4, 6)) == [("parts.b", "parts.c"), ("parts.h",)]


class PreNorm(nn.Module):
    """x + f(norm(x)), twice: the stream runs past both."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Linear(4, 8), nn.Linear(8, 2)
        self.norms = nn.ModuleList([nn.LayerNorm(8), nn.LayerNorm(8)])
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.embed(x)
        for norm, layer in zip(self.norms, (self.first, self.second), strict=True):
            x = x + layer(norm(x)).relu()
        return self.head(x)


def test_of_a_stream_with_norms_in_front():
    assert found(PreNorm(), torch.randn(4, 4)) == [("first",), ("second",)]


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.again = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        x = self.first(x)
        for _ in range(2):
            x = x + self.again(x).relu()
        return x


def test_a_layer_that_runs_twice_is_no_branch():
    assert found(Shared(), torch.randn(4, 6)) == []
    broadcast = nn.Sequential(nn.Linear(6, 1))
    assert found(broadcast, torch.randn(4, 6)) == []


def test_layers_that_are_left_out_end_a_branch():
    model, batch = Joined(), torch.randn(4, 6)
    layers = sm.discover(model, batch, exclude="parts.b")
    assert [branch.layers for branch in residual_branches(layers)] == [("parts.h",)]
