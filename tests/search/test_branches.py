"""Giving up residual branches: which, and what becomes of the budget."""

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.layers import Branch, count_multiplications
from sparsemend.search.branches import give_up

A, B, C = (Branch((name,)) for name in "abc")


def test_branches_are_given_up_as_long_as_it_helps():
    values = {(): 3.0, (A,): 2.5, (B,): 2.0, (C,): 4.0, (B, A): 1.5}
    # Alone C did harm, so it is not tried again.
    assert give_up((A, B, C), values.__getitem__) == (B, A)
    assert give_up((A, B), {(): 1.0, (A,): 0.98, (B,): 2.0}.__getitem__) == ()
    assert give_up((A, B), {(): 3.0, (A,): 2.0, (B,): 2.0, (A, B): 2.0}.__getitem__) == (A,)


class Residual(nn.Module):
    """A useless branch with large weights, and layers that need theirs."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.inner, self.norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.outer, self.last_norm = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 10)

    def forward(self, x):
        x = self.first(x)
        branch = self.last_norm(self.outer(self.norm(self.inner(x)).relu()))
        return self.head((x + branch).relu().mean(dim=(2, 3)))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    model = Residual()
    nn.init.constant_(model.last_norm.weight, 0.05)
    with torch.no_grad():
        for layer in (model.inner, model.outer):
            layer.weight.mul_(5)
    batches = [torch.randn(32, 3, 8, 8) for _ in range(3)]
    sm.recalibrate(model, batches)
    return model, batches


def compressed(network, **options):
    model, batches = network
    return sm.compress(model, batches[:2], heldout=batches[2:], rule="branches", **options)


def test_what_a_branch_had_goes_to_the_other_layers(network):
    result = compressed(network, sparsity=0.9, repair="batchnorm")
    found = result.allocation
    assert found["inner"] == found["outer"] == 0
    assert "given up whole: inner, outer\n" in f"{result}\n"
    assert found.rule == "branches"
    assert found.kept == round(0.1 * found.total)
    rest = sm.allocate(
        network[0],
        1 - found.kept / (found.sizes["first.0"] + found.sizes["head"]),
        "lamp",
        exclude=["inner", "outer"],
    )
    assert {name: kept for name, kept in found.items() if kept} == dict(rest)


def test_a_branch_stays_without_which_too_few_weights_are_left(network):
    found = compressed(network, sparsity=0.5, repair="batchnorm").allocation
    assert found["inner"]
    assert found["outer"]
    assert found.kept == round(0.5 * found.total)


def test_a_target_is_met_without_the_branch(network):
    model, batches = network
    result = compressed(network, target_flops=0.1, repair="batchnorm")
    layers = sm.discover(model, batches[0])
    costs = count_multiplications(model, layers, batches[0])
    spent = sum(costs[n] * result.allocation.densities[n] for n in costs)
    assert result.allocation["inner"] == 0
    assert 0.095 < spent / sum(costs.values()) <= 0.1


def test_with_a_repair_that_refits_all_branches_stay(network):
    result = compressed(network, sparsity=0.9, repair="reconstruct")
    plain = sm.allocate(network[0], 0.9, "lamp", example=network[1][0])
    assert dict(result.allocation) == dict(plain)


def test_a_network_without_branches_keeps_all_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    batches = [torch.randn(16, 6) for _ in range(3)]
    found = sm.compress(model, batches, 0.5, rule="branches", repair="variance").allocation
    assert dict(found) == dict(sm.allocate(model, 0.5, "lamp"))


def test_it_is_no_rule_of_weights_alone(network):
    with pytest.raises(sm.SparsemendError, match=r"'branches' is a search .*compress"):
        sm.allocate(network[0], 0.9, "branches")
    with pytest.raises(sm.SparsemendError, match=r"'auto', 'branches'.*did you mean 'branches'"):
        sm.compress(*network, 0.9, rule="branchs")
    with pytest.raises(sm.SparsemendError, match=r"2:4.*'branches'"):
        compressed(network, pattern="2:4", repair="batchnorm")
