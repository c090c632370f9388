"""The peers of the benchmark do what their papers say, on layers small enough to check."""

import copy

import pytest
import torch
from torch import nn

import sparsemend as sm

# Needs the repository's root on the path: python -m pytest.
sparsegpt = pytest.importorskip("benchmarks.peers.sparsegpt")
obc = pytest.importorskip("benchmarks.peers.obc")


def problem(rows=4, width=7, seed=0, groups=1):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(groups, rows, width, generator=generator, dtype=torch.float64)
    x = torch.randn(groups, width, 3 * width, generator=generator, dtype=torch.float64)
    return weight, x @ x.mT / x.shape[2]


@pytest.mark.parametrize("module", [sparsegpt, obc])
def test_nothing_pruned_leaves_the_weights(module):
    weight, second = problem()
    after, mask = module.prune_layer(weight, second, weight.numel())
    assert mask.all()
    torch.testing.assert_close(after, weight)


@pytest.mark.parametrize("module", [sparsegpt, obc])
@pytest.mark.parametrize("kept", [0, 1, 5, 27, 28, 55, 56])
def test_counts_are_exact(module, kept):
    weight, second = problem(groups=2)
    after, mask = module.prune_layer(weight, second, kept)
    assert int(mask.sum()) == kept
    assert not after[~mask].any()


def test_every_block_of_sparsegpt_keeps_its_share():
    weight, second = problem(rows=6, width=10)
    _, mask = sparsegpt.prune_layer(weight, second, 20, block=4)
    assert [int(part.sum()) for part in mask.split(4, dim=2)] == [8, 8, 4]


def test_eliminating_one_weight_is_the_closed_form():
    weight, second = problem(rows=1)
    row, inverse = weight[0, 0], second[0].inverse()
    cost = row.square() / inverse.diagonal()
    gone = int(cost.argmin())
    expected = row - inverse[gone] * row[gone] / inverse[gone, gone]
    after, mask = obc.prune_layer(weight, second, row.numel() - 1, damping=0.0)
    assert mask[0, 0].logical_not().nonzero().flatten().tolist() == [gone]
    torch.testing.assert_close(after[0, 0], expected)
    _, losses = obc.eliminate(weight[0], second[0])
    torch.testing.assert_close(losses[0, 0], cost.min())


def test_recorded_losses_add_up_to_the_error():
    weight, second = problem(rows=3)
    order, losses = obc.eliminate(weight[0], second[0])
    for pruned in range(weight.shape[2] + 1):
        mask = torch.ones_like(weight, dtype=torch.bool)
        mask[0].scatter_(1, order[:, :pruned], False)
        error = obc.solve_rows(weight, second, mask)[0] - weight[0]
        quadratic = (error @ second[0] * error).sum(dim=1)
        torch.testing.assert_close(quadratic, losses[:, :pruned].sum(dim=1))


def test_rows_give_in_the_order_of_their_next_loss():
    losses = torch.tensor([[1.0, 9.0, 2.0], [3.0, 4.0, 5.0]])
    counts = [obc.row_counts(losses, pruned).tolist() for pruned in range(7)]
    assert counts == [[0, 0], [1, 0], [1, 1], [1, 2], [1, 3], [2, 3], [3, 3]]


@pytest.mark.parametrize("sequential", [False, True])
def test_networks_keep_what_was_allocated(sequential):
    torch.manual_seed(0)
    dense = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 5)
    ).eval()
    batches = list(torch.randn(24, 3, 6, 6).split(12))
    layers = sm.discover(dense, batches[0])
    allocation = sm.allocate(dense, 0.5, "global", layers=layers)
    for prune in (sparsegpt.sparsegpt, obc.obc_sequential if sequential else obc.obc):
        model = copy.deepcopy(dense)
        extra = (dense,) if prune is obc.obc_sequential else ()
        masks = prune(model, batches, layers, allocation, *extra)
        for name, kept in allocation.items():
            assert int(masks[name].sum()) == kept
            assert not model.get_submodule(name).weight[~masks[name]].any()


def test_refit_to_the_layers_own_outputs_leaves_the_weights():
    torch.manual_seed(0)
    module = nn.Conv2d(3, 4, 3, stride=2, padding=1).double()
    x = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    layer = sm.discover(module, x)[0]
    second = obc.hessian(module, layer, [x])
    weight = obc.refit(module, layer, second, [x], [module(x).detach()], damping=1e-12)
    torch.testing.assert_close(weight.reshape(module.weight.shape), module.weight.detach())
