from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs.networks import random_network, sparse_
from torch import nn

import sparsemend as sm
from sparsemend.graphs import shrink, to_module, trace
from sparsemend.graphs.operations import Convolution, Linear


def weights(graph):
    return sum(n.operation.weight.numel() for n in graph
               if isinstance(n.operation, Convolution | Linear))  # fmt: skip


def assert_same(ours, expected):
    scale = float(expected.abs().max())
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4 * (scale or 1))


def kill_(model, seed, share=0.4):
    """Empty some rows and some columns of layers; in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            weight[torch.rand(len(weight), generator=generator) < share] = 0
            weight[:, torch.rand(weight.shape[1], generator=generator) < share] = 0
    return model


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_outputs_stay_and_modules_are_plain(seed):
    model, x = random_network(seed)
    kill_(model, seed)
    graph = trace(model, x).graph
    smaller = shrink(graph)
    assert weights(smaller) <= weights(graph)
    with torch.no_grad():
        expected = model(x)
        assert_same(smaller.run(x)[0], expected)
        module = to_module(smaller)
        more = torch.cat([x, x.flip(-1)])
        assert_same(module(more), model(more))
    assert not any(type(m).__module__.startswith("sparsemend") for m in module.modules())


def chain(padding, bias):
    """Two convolutions; channel 1 of the first has no weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(),
                          nn.Conv2d(4, 2, 3, padding=padding)).eval()  # fmt: skip
    model[0].weight.data[1] = 0
    model[0].bias.data[1] = bias
    return model, torch.randn(1, 1, 6, 6)


def test_a_constant_goes_into_the_bias_only_where_there_is_no_padding():
    for padding, bias, channels in [(0, 0.7, 3), (1, 0.7, 4), (1, -0.7, 3), (1, 0.0, 3)]:
        model, x = chain(padding, bias)
        smaller = shrink(trace(model, x).graph)
        assert smaller.nodes[0].operation.weight.shape[0] == channels
        assert_same(smaller.run(x)[0], model(x).detach())


@pytest.mark.parametrize("split", [False, True])
def test_one_constant_channel_stands_for_all_in_front_of_padding(split):
    model, x = chain(1, 0.7)
    model[0].weight.data[[1, 3]] = 0
    model[0].bias.data[[1, 3]] = torch.tensor([0.2, -0.7 if split else 1.3])
    smaller = shrink(trace(model, x).graph)
    assert smaller.nodes[0].operation.weight.shape[0] == 3
    assert_same(smaller.run(x)[0], model(x).detach())


def test_what_only_feeds_the_dead_goes_too():
    model, x = chain(0, 0.0)
    model.insert(0, nn.Conv2d(1, 5, 3, padding=1))
    model[1] = nn.Conv2d(5, 4, 3, padding=1)
    model[1].weight.data[:, 2] = 0
    smaller = shrink(trace(model.eval(), x).graph)
    assert smaller.nodes[0].operation.weight.shape[0] == 4
    assert_same(smaller.run(x)[0], model(x).detach())


def test_channels_that_are_summed_go_together():
    model = sparse_(sm.models.create("cifar_resnet20", width=4), 0.3)
    for name, module in model.named_modules():
        # All that is added to the first stage: its channel 2 has no weights and a bias below 0.
        if name in ("conv1", *(f"layer1.{i}.conv2" for i in range(3))):
            module.weight.data[2] = 0
        if name in ("bn1", *(f"layer1.{i}.bn2" for i in range(3))):
            module.running_mean[2], module.bias.data[2] = 0, -1
    x = torch.randn(2, 3, 32, 32)
    graph = trace(model, x).graph
    smaller = shrink(graph)
    rows = {
        n.name: len(n.operation.weight) for n in smaller if isinstance(n.operation, Convolution)
    }
    assert rows["conv1"] == rows["layer1.0.conv2"] == rows["layer1.2.conv2"] <= 3
    with torch.no_grad():
        assert_same(smaller.run(x)[0], model(x))


def test_one_channel_stays():
    model, x = chain(0, 0.0)
    model[0].weight.data.zero_()
    smaller = shrink(trace(model, x).graph)
    assert smaller.nodes[0].operation.weight.shape[0] == 1
    assert_same(smaller.run(x)[0], model(x).detach())


@pytest.mark.parametrize(("shape", "smaller"), [((2, 5, 6), True), ((2, 3, 5, 6), False)])
def test_linear_layers_on_sequences_lose_dead_features(shape, smaller):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 3)).eval()
    model[2].weight.data[:, 2:5] = 0
    x = torch.randn(shape)
    graph = shrink(trace(model, x).graph)
    assert (weights(graph) == 5 * (6 + 3)) == smaller
    with torch.no_grad():
        assert_same(graph.run(x)[0], model(x))


def test_flattened_sequences_keep_their_features():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Flatten(), nn.Linear(40, 3)).eval()
    model[3].weight.data[:, 8:16] = 0
    x = torch.randn(2, 5, 6)
    with torch.no_grad():
        assert_same(shrink(trace(model, x).graph).run(x)[0], model(x))
