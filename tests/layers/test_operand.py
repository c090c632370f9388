"""Views of parameters are found by their memory, and again in copies."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsemend.layers.operand import Operands, key_of


class Held(nn.Module):
    """Two parameters; ``b`` lies in the middle of a longer tensor."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.arange(60.0).reshape(3, 4, 5))
        self.b = nn.Parameter(torch.arange(100.0)[20:50].reshape(5, 6))


VIEWS = {
    "whole": lambda m: m.a,
    "detached": lambda m: m.a.detach(),
    "one of a stack": lambda m: m.a[1],
    "transposed": lambda m: m.b.T,
    "a part of one of a stack, transposed": lambda m: m.a[2].mT[1:3],
    "rows": lambda m: m.b[1:4],
    "columns": lambda m: m.b[:, 2:5],
    "every other row": lambda m: m.b[::2],
    "flat": lambda m: m.a.view(-1),
    "split": lambda m: m.b.split([2, 3])[1],
    "another dimension": lambda m: m.b[:, None],
}


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_found_and_found_again_in_copies(view):
    model, take = Held(), VIEWS[view]
    seen = take(model)
    operand = Operands(model).find(seen)
    twin = copy.deepcopy(model)
    for one in (model, twin):
        again = operand.of(one)
        assert key_of(again) == key_of(take(one))
        assert torch.equal(again, take(one))
        assert not again.requires_grad
    operand.of(twin).zero_()
    assert not take(twin).any()
    assert torch.equal(take(model), seen)
    assert sum(int((p == 0).sum()) for p in twin.parameters()) >= seen.numel()


def test_the_parameter_is_named():
    model = Held()
    operands = Operands(model)
    assert [operands.find(t).parameter for t in (model.a[0], model.b.T)] == ["a", "b"]
    assert operands.find(model.b[2:]).offset == 12


def test_what_is_computed_or_lies_elsewhere_is_no_parameter():
    model = Held()
    operands = Operands(model)
    for tensor in (model.a + 0, model.a.clone(), torch.zeros(3, 4), torch.empty(0)):
        assert operands.find(tensor) is None
    # The memory before and behind b belongs to no parameter.
    around = model.b.detach().as_strided((10,), (1,), 0)
    behind = model.b.detach().as_strided((10,), (1,), 50)
    across = model.b.detach().as_strided((10,), (1,), 45)
    assert [operands.find(t) for t in (around, behind, across)] == [None] * 3
    assert operands.find(model.a.detach().view(torch.int32)) is None


def test_a_tied_parameter_has_one_name():
    net = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    net[1].weight = net[0].weight
    assert Operands(net).find(net[1].weight).parameter == "0.weight"


@pytest.mark.parametrize("view", VIEWS)
def test_other_networks_are_refused(view):
    model = Held()
    operand = Operands(model).find(VIEWS[view](model))
    with pytest.raises(AttributeError):
        operand.of(nn.Linear(3, 3))
    larger = Held()
    larger.a, larger.b = (nn.Parameter(torch.zeros(9, 9, 9)) for _ in range(2))
    with pytest.raises(ValueError, match=r"weight shape \(9, 9, 9\)"):
        operand.of(larger)


def test_memory_in_another_order():
    net = nn.Conv2d(3, 4, 2)
    whole, part = (Operands(net).find(t) for t in (net.weight, net.weight[:2]))
    moved = copy.deepcopy(net).to(memory_format=torch.channels_last)
    assert torch.equal(whole.of(moved), net.weight)
    whole.of(moved).zero_()
    assert not moved.weight.any()
    with pytest.raises(ValueError, match="strides"):
        part.of(moved)


@given(st.data())
def test_extent_is_from_the_first_element_to_behind_the_last(data):
    net = nn.Module()
    net.register_parameter("w", nn.Parameter(torch.arange(120.0).reshape(4, 5, 6)))
    view = net.w
    for dim, size in enumerate(net.w.shape):
        start = data.draw(st.integers(0, size - 1))
        stop = data.draw(st.integers(start + 1, size))
        view = view.narrow(dim, start, stop - start)
    view = view.permute(data.draw(st.permutations(range(3))))
    operand = Operands(net).find(view)
    assert (operand.offset, operand.offset + operand.extent - 1) == (view.min(), view.max())
    assert operand.whole == (4, 5, 6)
