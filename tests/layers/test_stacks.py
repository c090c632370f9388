"""Stacks of matrices and matrices with several dimensions: one layer for each matrix."""

import warnings
from types import MethodType

import pytest
import torch
from torch import nn

from sparsemend.errors import SparsemendWarning
from sparsemend.layers import LayerCalls, discover, layer_weight


class Product(nn.Module):
    """Some operation with a parameter of a shape."""

    def __init__(self, operation, *shape):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))
        self.operation = operation

    def forward(self, x):
        return self.operation(x, self.weight)


def equation(text):
    return lambda x, w: torch.einsum(text, x, w)


def grouped(x, weight):
    ends = torch.tensor([2, 2, len(x)], dtype=torch.int32)
    return torch._grouped_mm(x, weight, offs=ends)


CASES = {
    "heads": (equation("bth,hnd->btnd"), (2, 5, 6), (6, 3, 4), [(12, 6)]),
    "heads joined": (equation("btnd,hnd->bth"), (2, 5, 3, 4), (6, 3, 4), [(6, 12)]),
    "heads joined, inputs last": (
        lambda x, w: torch.einsum("hnd,btnd->tbh", w, x), (2, 5, 3, 4), (6, 3, 4), [(6, 12)],
    ),
    "ellipsis": (equation("...d,rd->...r"), (2, 5, 4), (6, 4), [(6, 4)]),
    "operands in a list": (
        lambda x, w: torch.einsum("nd,rd->rn", [x, w]), (5, 4), (6, 4), [(6, 4)],
    ),
    "stack in the middle": (equation("nd,deh->neh"), (5, 4), (4, 3, 6), [(18, 4)]),
    "stack on the same inputs": (equation("nd,edh->enh"), (5, 4), (3, 4, 6), [(6, 4)] * 3),
    "stack on inputs of their own": (equation("ned,edh->nhe"), (5, 3, 4), (3, 4, 6), [(6, 4)] * 3),
    "two dimensions of experts": (
        equation("nabd,abhd->nabh"), (5, 2, 2, 4), (2, 2, 6, 4), [(6, 4)] * 4,
    ),
    "matmul of a stack": (torch.matmul, (2, 3, 5, 4), (3, 4, 6), [(6, 4)] * 3),
    "matmul of a stack, broadcast": (torch.matmul, (2, 1, 5, 4), (3, 4, 6), [(6, 4)] * 3),
    "from the left": (lambda x, w: w @ x, (2, 4, 5), (6, 4), [(6, 4)]),
    "a stack, with something added": (
        lambda x, w: torch.baddbmm(x.new_ones(3, 1, 6), x, w), (3, 5, 4), (3, 4, 6), [(6, 4)] * 3,
    ),
    "arguments by name": (
        lambda x, w: torch.nn.functional.linear(bias=None, weight=w, input=x), (5, 4), (6, 4),
        [(6, 4)],
    ),
    "operands by name, into memory that is there": (
        lambda x, w: torch.mm(out=x.new_empty(0), mat2=w, input=x), (5, 4), (4, 6), [(6, 4)],
    ),
    "matmul of linalg": (torch.linalg.matmul, (5, 4), (4, 6), [(6, 4)]),
    "a stack of one": (torch.matmul, (3, 5, 4), (1, 4, 6), [(6, 4)]),
    "a stack of stacks": (torch.matmul, (2, 3, 5, 4), (2, 3, 4, 6), [(6, 4)] * 6),
    "a stack of stacks, broadcast": (torch.matmul, (5, 4), (2, 3, 4, 6), [(6, 4)] * 6),
    "a vector and a stack": (torch.matmul, (4,), (3, 4, 6), [(6, 4)] * 3),
    "a stack and a vector": (lambda x, w: w @ x, (4,), (3, 6, 4), [(6, 4)] * 3),
    "from the right, by the tensor": (lambda x, w: x.__rmatmul__(w), (4, 5), (6, 4), [(6, 4)]),
    "a stack by name": (lambda x, w: torch.bmm(x, mat2=w), (3, 5, 4), (3, 4, 6), [(6, 4)] * 3),
    "a stack in another type": (
        lambda x, w: torch.bmm(x.double(), w.double()).float(), (3, 5, 4), (3, 4, 6), [(6, 4)] * 3,
    ),
    "an equation in another type": (
        lambda x, w: torch.einsum("ned,edh->neh", x.double(), w.double()).float(),
        (5, 3, 4), (3, 4, 6), [(6, 4)] * 3,
    ),
    "a residual, added": (
        lambda x, w: torch.addmm(x, x, w), (5, 4), (4, 4), [(4, 4)],
    ),
    "a row, added": (
        lambda x, w: torch.addmm(x[:1], mat1=x, mat2=w), (5, 4), (4, 4), [(4, 4)],
    ),
    "one number, added": (
        lambda x, w: torch.addmm(x.sum()[None], x, w), (5, 4), (4, 6), [(6, 4)],
    ),
    "with factors": (
        lambda x, w: torch.addmm(x[0], x, w, beta=0.5, alpha=2), (5, 4), (4, 4), [(4, 4)],
    ),
    "with factor 0": (
        lambda x, w: torch.addmm(x * torch.nan, x, w, beta=0), (5, 4), (4, 4), [(4, 4)],
    ),
    "added in place": (lambda x, w: x.clone().addmm_(x, w), (5, 4), (4, 4), [(4, 4)]),
    "addmv": (lambda x, w: torch.addmv(x, w, x), (4,), (4, 4), [(4, 4)]),
    "addbmm": (
        lambda x, w: torch.addbmm(x[0], x, w, alpha=0.5), (3, 4, 4), (3, 4, 4), [(4, 4)] * 3,
    ),
    "tensordot": (lambda x, w: torch.tensordot(x, w, 1), (5, 4), (4, 6), [(6, 4)]),
    "tensordot over two dimensions": (
        lambda x, w: torch.tensordot(w, x, ([1, 2], [2, 1])), (5, 3, 4), (6, 4, 3), [(6, 12)],
    ),
    "inner": (torch.inner, (2, 5, 4), (6, 4), [(6, 4)]),
    "a chain": (
        lambda x, w: torch.linalg.multi_dot([x, w, x.T]), (5, 4), (4, 4), [(4, 4)],
    ),
    "a chain from the left": (
        lambda x, w: torch.linalg.multi_dot([w, x, x.T]), (4, 5), (6, 4), [(6, 4)],
    ),
    "an equation without an arrow": (equation("nd,dr"), (5, 4), (4, 6), [(6, 4)]),
    "an equation of three": (
        lambda x, w: torch.einsum("rd,nd,nr->nr", w, x, x @ x.new_ones(4, 6)), (5, 4), (6, 4),
        [(6, 4)],
    ),
    "columns": (
        lambda x, w: torch.nn.functional.linear(x[:, :2], w[:, :2])
        + torch.nn.functional.linear(x[:, 2:], w[:, 2:]),
        (5, 4), (6, 4), [(6, 2)] * 2,
    ),
    "every other row": (
        lambda x, w: torch.nn.functional.linear(x, w[::2])
        + torch.nn.functional.linear(x, w[1::2]),
        (5, 4), (6, 4), [(3, 4)] * 2,
    ),
    "operators of exported networks": (
        lambda x, w: torch.ops.aten.linear.default(x, w), (5, 4), (6, 4), [(6, 4)],
    ),
    "mv": (lambda x, w: torch.mv(w, x), (4,), (6, 4), [(6, 4)]),
    "from the left of a vector": (lambda x, w: w @ x, (4,), (6, 4), [(6, 4)]),
    "a stack from the left": (lambda x, w: torch.bmm(w, x), (3, 4, 5), (3, 6, 4), [(6, 4)] * 3),
    "a stack from the left of all": (lambda x, w: w @ x, (4, 5), (3, 6, 4), [(6, 4)] * 3),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_written_out_it_computes_the_same(case):
    operation, inputs, shape, matrices = CASES[case]
    torch.manual_seed(0)
    network, x = Product(operation, *shape), torch.randn(*inputs)
    layers = discover(network, x)
    assert layers.coverage.share == 1
    assert [(layer.rows, layer.fan_in) for layer in layers] == matrices
    with torch.no_grad():
        expected = network(x)
        with LayerCalls(network, layers):
            found = network(x)
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=1e-5)
        # The layers are the parameter itself.
        for layer in layers:
            layer_weight(network, layer).zero_()
    assert not network.weight.any()


def test_parts_are_named_as_indices():
    names = {
        "columns": ("weight[:, 0:2]", "weight[:, 2:4]"),
        "every other row": ("weight[0:5:2]", "weight[1:6:2]"),
        "a vector and a stack": ("weight[0]", "weight[1]", "weight[2]"),
        "a stack of stacks": tuple(f"weight[{a}, {b}]" for a in range(2) for b in range(3)),
    }
    for case, expected in names.items():
        operation, inputs, shape, _ = CASES[case]
        x = torch.randn(*inputs)
        assert discover(Product(operation, *shape), x).names == expected
        for name in expected:
            assert discover(Product(operation, *shape), x, include=name).names == (name,)


def test_one_weight_in_several_places_is_left_out():
    network = Product(None, 1, 1, 3)
    network.head = nn.Linear(5, 2)
    network.operation = MethodType(
        lambda net, x, w: net.head(
            nn.functional.conv1d(x, w.expand(4, -1, -1), groups=4, padding=1).mean(1)
        ),
        network,
    )
    with pytest.warns(SparsemendWarning, match="read in several ways that overlap"):
        layers = discover(network, torch.randn(2, 4, 5))
    assert layers.names == ("head",)
    assert layers.coverage.matrix == 3 + 10


@pytest.mark.parametrize(
    ("text", "inputs", "shape"),
    [
        ("nd,d->nd", (5, 4), (4,)),
        ("nd,nd->n", (5, 4), (5, 4)),
        ("nd,rdd->nr", (5, 4), (6, 4, 4)),
        ("nd,rds->nr", (5, 4), (6, 4, 2)),
    ],
)
def test_an_equation_that_is_no_product_with_matrices_runs_as_it_is(text, inputs, shape):
    network = Product(equation(text), *shape)
    network.head = nn.Linear(1, 1)
    network.operation = MethodType(
        lambda net, x, w: net.head(torch.einsum(text, x, w).sum()[None]), network
    )
    with warnings.catch_warnings():  # of those that are named einsum, that no kind reads them
        warnings.simplefilter("ignore", SparsemendWarning)
        layers = discover(network, torch.randn(*inputs))
    assert layers.names == ("head",)


@pytest.mark.skipif(not hasattr(torch, "_grouped_mm"), reason="this PyTorch has no such operation")
def test_experts_see_the_rows_that_are_sent_to_them():
    torch.manual_seed(0)
    network, x = Product(grouped, 3, 4, 8), torch.randn(6, 4)
    with pytest.warns(SparsemendWarning, match="not reached"):
        layers = discover(network, x)
    assert layers.names == ("weight[0]", "weight[2]")  # nothing is sent to the second
    assert layers.coverage.share == pytest.approx(2 / 3)
    parts = {}

    def note(layer, call):
        parts[layer.name] = call.x

    with torch.no_grad(), LayerCalls(network, layers, before=note):
        found = network(x)
    assert torch.equal(parts["weight[0]"], x[:2])
    assert torch.equal(parts["weight[2]"], x[2:])
    expected = torch.cat([x[:2] @ network.weight[0], x[2:] @ network.weight[2]])
    assert torch.allclose(found, expected, atol=1e-6)


def test_further_batches_reach_the_other_matrices_of_a_stack():
    def chosen(x, weight):
        return x @ weight[int(x[0, 0] > 0)]

    network = Product(chosen, 2, 4, 8)
    x = torch.ones(3, 4)
    with pytest.warns(match="not reached"):
        assert discover(network, x).names == ("weight[1]",)
    assert set(discover(network, x, [-x]).names) == {"weight[0]", "weight[1]"}


def test_a_parameter_that_is_asked_for_its_size_alone_is_not_used():
    def asked(x, weight):
        return x * weight.size(0)

    network = Product(asked, 3, 4)
    network.head = nn.Linear(4, 2)
    network.operation = MethodType(lambda net, x, w: net.head(asked(x, w)), network)
    with pytest.warns(match="not reached"):
        discover(network, torch.randn(2, 4))


def test_weights_that_are_computed_by_products_are_left_out():
    network = Product(None, 6, 4)
    network.low, network.high = nn.Parameter(torch.randn(2, 4)), nn.Parameter(torch.randn(6, 2))
    network.head = nn.Linear(6, 3)

    def adapted(net, x, weight):
        return net.head(nn.functional.linear(x, weight + net.high @ net.low))

    network.operation = MethodType(adapted, network)
    with pytest.warns(SparsemendWarning, match="what is computed from it"):
        layers = discover(network, torch.randn(5, 4))
    assert layers.names == ("head",)
    assert layers.coverage.matrix == 24 + 8 + 12 + 18


def test_what_is_computed_of_a_learned_input_is_no_weight():
    network = Product(None, 1, 4)
    network.first, network.second = nn.Linear(4, 5), nn.Linear(5, 3)
    network.operation = MethodType(
        lambda net, x, start: net.second(net.first(start).relu() + x), network
    )
    assert discover(network, torch.randn(2, 5)).names == ("first", "second")


def test_queries_made_of_learned_tokens_are_no_weight():
    network = Product(None, 3, 4)
    network.query, network.head = nn.Linear(4, 6), nn.Linear(3, 2)

    def attend(net, x, tokens):
        queries = net.query(nn.functional.layer_norm(tokens, (4,)))
        return net.head(torch.bmm(x, queries.mT.expand(len(x), -1, -1)).mean(1))

    network.operation = MethodType(attend, network)
    layers = discover(network, torch.randn(2, 5, 6))
    assert layers.names == ("query", "head")
    assert layers.coverage.share == 1
