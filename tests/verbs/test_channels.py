"""Whole channels of networks with residual sums: kept or given up in all layers that meet there."""

import functools

import pytest
import torch
from tests.layers.residual import Residual
from tests.repairs.networks import randomise
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.allocation import kept_total
from sparsemend.graphs import multiplications, shrink, to_module, trace
from sparsemend.layers import count_multiplications
from sparsemend.masks.verification import verify_masks

TOGETHER = ("stem", "down", "outer")
# Rule, mask and repair: each mask and each way of pricing somewhere.
WAYS = [
    ("global", "magnitude", "variance"),
    ("rr", "activation", "affine+batchnorm"),
    ("uniform", "gradual", "reconstruct"),
    ("erk[first=uniform]", "activation", "reconstruct"),
]


@functools.cache
def network():
    torch.manual_seed(0)
    model = Residual()
    for module in model.modules():  # constants of channels that are gone, of either sign
        if isinstance(module, nn.Conv2d) and module.bias is not None:
            nn.init.normal_(module.bias)
    return randomise(model, 0), [torch.randn(24, 3, 8, 8) for _ in range(2)]


def channels(result, name):
    return result.masks[name].flatten(1).any(1)


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize(("rule", "mask", "repair"), WAYS)
def test_channels_of_a_sum_go_together_and_what_is_said_runs(rule, mask, repair):
    model, batches = network()
    result = sm.compress(model, batches, 0.5, rule, mask, repair, pattern="channel")
    assert all(torch.equal(channels(result, "stem"), channels(result, x)) for x in TOGETHER)
    unit = sum(result.layers[name].structure.least for name in TOGETHER)
    assert abs(result.allocation.kept - kept_total(0.5, result.allocation.total)) <= unit
    graph = shrink(trace(result.model, batches[0][:1]).graph)
    smaller = to_module(graph)
    torch.testing.assert_close(smaller(batches[0]), result.model(batches[0]).detach(),
                               rtol=1e-3, atol=1e-4)  # fmt: skip
    spent = sum(multiplications(graph, nonzero=True).values())
    assert result.kept_multiplications == spent / sum(result.multiplications.values())
    layers = sm.discover(smaller, batches[0])
    assert spent <= sum(count_multiplications(smaller, layers, batches[0]).values())


@pytest.mark.parametrize("share", [0.4, 0.7])
@pytest.mark.parametrize("rule", ["uniform", "lamp"])
def test_a_target_is_of_what_runs(rule, share):
    model, batches = network()
    result = sm.compress(
        model, batches, None, rule, "magnitude", "variance", target_flops=share, pattern="channel"
    )
    assert result.reached == result.kept_multiplications <= share
    # So small a network comes in large steps.
    assert result.reached > share - 0.25


def test_densities_of_ones_own_are_kept_and_share_one_ranking():
    model, batches = network()
    given = {"stem": 1.0, "down": 0.5, "outer": 0.25, "up": 0.5, "inner": 0.5}
    result = sm.compress(model, batches, rule=given, repair="variance", pattern="channel")
    assert [int(channels(result, name).sum()) for name in TOGETHER] == [4, 2, 1]
    assert bool((channels(result, "down") | ~channels(result, "outer")).all())


def test_a_mask_rule_that_forgets_the_others_is_found_out():
    model, batches = network()
    result = sm.compress(model, batches, 0.5, "uniform", repair="none", pattern="channel")
    masks = {**result.masks, "down": result.masks["down"].roll(1, 0)}
    with pytest.raises(SparsemendError, match="layer 'down' keeps other channels than it has to"):
        verify_masks(result.model, masks, result.allocation, result.layers)


def test_weights_that_reach_nothing_do_not_multiply():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1), nn.ReLU(), nn.Conv2d(3, 4, 1), nn.Flatten(),
        nn.Linear(4 * 16, 2),
    ).eval()  # fmt: skip
    x = torch.randn(4, 2, 4, 4)
    with torch.no_grad():
        model[2].weight[:, 1] = 0.01  # so that nothing reads the second channel of the first
    result = sm.compress(model, x, rule={"0": 1.0, "2": 0.5, "4": 1.0}, repair="none")
    unread = ~result.masks["2"].flatten(2).any(2).any(0)
    assert unread.any()
    counted = sum(result.allocation[name] * {"0": 16, "2": 16, "4": 1}[name] for name in "024")
    dense = sum(result.multiplications.values())
    gone = int(unread.sum()) * 18 * 16
    assert result.kept_multiplications == pytest.approx((counted - gone) / dense)
