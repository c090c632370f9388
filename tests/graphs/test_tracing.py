from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs.networks import random_network, sparse_
from torch import nn

import sparsemend as sm
from sparsemend.graphs import multiplications, trace
from sparsemend.graphs.operations import Activation, Affine, Convolution, Linear, Torch


def labels(graph):
    return [node.operation.label for node in graph]


def assert_same(model, x, graph):
    with torch.no_grad():
        expected = model(x)
    (output,) = graph.run(x)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)


@settings(max_examples=20)
@given(st.integers(0, 10**6))
def test_graphs_compute_what_networks_do(seed):
    model, x = random_network(seed)
    graph = trace(model, x).graph
    assert_same(model, x, graph)
    # The batch is no part of a graph, and shapes are known without running it.
    more = torch.cat([x, x.flip(-1), x])
    assert_same(model, more, graph)
    values = graph.values([more])
    assert graph.shapes([more]) == {name: tuple(value.shape) for name, value in values.items()}


def test_names_are_those_of_layers_and_batchnorms_are_gone():
    model = sparse_(sm.models.create("cifar_resnet20"), 0.5)
    graph = trace(model, torch.randn(1, 3, 32, 32)).graph
    layers = [node.name for node in graph if isinstance(node.operation, Convolution | Linear)]
    expected = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert sorted(layers) == sorted(expected)
    assert set(labels(graph)) == {"convolution", "activation", "add", "global_average",
                                  "reshape", "linear"}  # fmt: skip


def test_folding_needs_the_layer_for_itself():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2)

        def forward(self, x):
            y = self.conv(x)
            return y * 2 + self.norm(y)

    model, x = sparse_(Shared(), 1.0), torch.randn(2, 2, 3, 3)
    graph = trace(model, x).graph
    assert any(isinstance(node.operation, Affine) for node in graph)
    assert_same(model, x, graph)


def test_a_computed_weight_is_a_constant():
    class Standardised(nn.Conv2d):
        def forward(self, x):
            weight = (self.weight - self.weight.mean()) / self.weight.std()
            return F.conv2d(x, weight, self.bias)

    model, x = Standardised(3, 4, 3).eval(), torch.randn(1, 3, 6, 6)
    graph = trace(model, x).graph
    assert labels(graph) == ["convolution"]
    assert_same(model, x, graph)


def test_other_functions_stay_pytorchs():
    model, x = nn.Sequential(nn.LayerNorm(5), nn.Linear(5, 3), nn.ELU()).eval(), torch.randn(4, 5)
    graph = trace(model, x).graph
    targets = [n.operation.target for n in graph if isinstance(n.operation, Torch)]
    assert targets == ["aten.native_layer_norm.default", "aten.elu.default"]
    assert_same(model, x, graph)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(2, 5, 6), (1, 3, 6), (2, 3, 4, 6)])
def test_linear_layers_on_sequences_are_one_operation(shape, bias):
    model = nn.Sequential(nn.Linear(6, 4, bias), nn.GELU(), nn.Linear(4, 3, bias)).eval()
    x = torch.randn(shape)
    graph = trace(model, x).graph
    assert labels(graph) == ["linear", "activation", "linear"]
    assert_same(model, x, graph)
    assert_same(model, torch.cat([x, x]), graph)


class Rows(nn.Module):
    """A linear layer on rows by hand, whose result is read as rows, too."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x):
        rows = self.linear(x.reshape(-1, 6))
        return rows.reshape(*x.shape[:-1], 4).sum(1) + rows.sum()


def test_rows_can_be_read_as_well():
    x = torch.randn(2, 5, 6)
    model = Rows().eval()
    assert_same(model, x, trace(model, x).graph)


def test_transformer_layers_are_taken_apart():
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    before = torch.backends.mha.get_fastpath_enabled()
    graph = trace(model, torch.randn(2, 5, 8)).graph
    assert labels(graph).count("linear") == 4
    assert torch.backends.mha.get_fastpath_enabled() == before
    assert_same(model, torch.randn(2, 5, 8), graph)


def test_operations_in_place():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 2, 3, padding=1)

        def forward(self, x):
            y = self.conv(x)
            z = torch.sigmoid(y)  # takes y as it was
            F.relu_(y)
            y += z
            return y

    model, x = InPlace().eval(), torch.randn(1, 2, 4, 4)
    graph = trace(model, x).graph
    assert [n.operation.function for n in graph if isinstance(n.operation, Activation)] == [
        "sigmoid",
        "relu",
    ]
    assert_same(model, x, graph)


class WritesIntoAView(nn.Module):
    def forward(self, x):
        y = x + 1
        y[:, 0] += 1
        return y


class WritesIntoAConstant(nn.Module):
    def forward(self, x):
        y = torch.zeros(x.shape)
        y[:, :1] = x[:, :1]
        return y


class DependsOnValues(nn.Module):
    def forward(self, x):
        return x + 1 if x.sum() > 0 else x


class IsConstant(nn.Module):
    def forward(self, x):
        return torch.zeros(x.shape)


@pytest.mark.parametrize(
    ("model", "text"),
    [
        (WritesIntoAView(), "writes into a tensor that has several views"),
        (WritesIntoAConstant(), "writes into a tensor that has several views"),
        (DependsOnValues(), "depends on the values of its inputs"),
        (IsConstant(), "an output of the network is constant"),
        (nn.Linear(4, 4).double(), "parameter 'weight' is not float32"),
    ],
)
def test_what_is_no_graph_is_refused(model, text):
    with pytest.raises(sm.SparsemendError, match=text):
        trace(model, torch.ones(2, 4))


def test_the_network_is_unchanged():
    model = nn.Sequential(nn.Linear(3, 2), nn.Dropout()).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    trace(model, torch.ones(1, 3))
    assert model.training
    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())


def test_inputs_of_another_shape_are_refused():
    graph = trace(nn.Linear(3, 2), torch.ones(1, 3)).graph
    with pytest.raises(sm.SparsemendError, match=r"inputs of this shape.*got '\(1, 4\)'"):
        graph.shapes([torch.ones(1, 4)])


class Picks(nn.Module):
    """Looks its input up, and takes some of the scores by index."""

    def __init__(self):
        super().__init__()
        self.embedding, self.linear = nn.Embedding(9, 4), nn.Linear(4, 5)

    def forward(self, tokens, classes):
        scores = self.linear(self.embedding(tokens))
        return scores, scores.gather(1, classes)


def test_whole_numbers_stay_whole_where_only_shapes_are_asked_for(capfd):
    tokens, classes = torch.tensor([1, 2, 3]), torch.tensor([[0, 1], [2, 3], [4, 0]])
    graph = trace(Picks().eval(), (tokens, classes)).graph
    assert multiplications(graph) == {"linear": 3 * 4 * 5}
    assert graph.traced_shapes()[graph.outputs[1]] == (3, 2)
    assert capfd.readouterr().err == ""  # PyTorch writes a traceback before it raises
