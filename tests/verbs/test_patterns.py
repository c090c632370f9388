"""Sparsity patterns through the whole job: what is kept has the pattern, exactly."""

import functools
import json

import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.allocation import kept_total
from sparsemend.graphs import shrink, to_module, trace
from sparsemend.layers import LayerFilter, weight_matrix
from sparsemend.patterns import parse_pattern
from sparsemend.verbs.plan import Plan
from sparsemend.verbs.screen import first_screen

TILED = ("block:1x4", "block:2x3", "channel")
# Rule, mask and repair: each of them somewhere, and every mask with a repair that can have it.
WAYS = [
    ("global", "magnitude", "variance"),
    ("lamp", "activation", "affine+batchnorm"),
    ("erk", "gradual", "reconstruct"),
    ("uniform+", "activation", "reconstruct"),
    ("rr", "magnitude", "shrinkage"),
    ("rr-density", "activation", "variance"),
    ("erk[first=uniform]", "magnitude", "batchnorm"),
]


class Net(nn.Module):
    """Convolutions with 3 and 4 input channels, groups, a transposed one, a linear layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 6, 2)
        self.last = nn.Linear(6 * 4, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.up(torch.relu(self.grouped(x))))
        return self.last(nn.functional.adaptive_avg_pool2d(x, 2).flatten(1))


@functools.cache
def network():
    torch.manual_seed(0)
    return Net().eval(), [torch.randn(24, 3, 6, 6) for _ in range(2)]


def check(result, dense, pattern):
    """Counts, pattern and +0 of every layer, and that all others are as they were."""
    layers = LayerFilter.of(pattern=pattern).apply(sm.discover(dense, network()[1][0]))
    assert result.pattern == layers[0].pattern.name == pattern
    assert tuple(result.allocation) == tuple(result.masks) == layers.names
    for layer in layers:
        weight = result.model.get_submodule(layer.name).weight.detach()
        mask = result.masks[layer.name]
        assert layer.structure.holds(weight_matrix(mask, layer))
        assert int(mask.sum()) == result.allocation[layer.name]
        assert torch.equal(weight[~mask], torch.zeros(int((~mask).sum())))
        assert not weight[~mask].signbit().any()
    for layer in sm.discover(dense):
        if layer.name not in layers.names:
            same = (net.get_submodule(layer.name).weight for net in (result.model, dense))
            assert torch.equal(*same)
    return layers


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.filterwarnings("ignore:the output of the sparse network")
@pytest.mark.parametrize(("rule", "mask", "repair"), WAYS)
@pytest.mark.parametrize("pattern", TILED)
def test_blocks_and_channels_with_every_rule_mask_and_repair(pattern, rule, mask, repair):
    model, batches = network()
    result = sm.compress(model, batches, 0.5, rule, mask, repair, pattern=pattern)
    layers = check(result, model, pattern)
    largest = max(layer.structure.least for layer in layers)
    assert abs(result.allocation.kept - kept_total(0.5, layers.total)) <= largest


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize(
    ("pattern", "mask", "repair"),
    [
        ("2:4", "magnitude", "variance"),
        ("1:4", "activation", "reconstruct"),
        ("2:4", "gradual", "reconstruct"),
        ("1:2", None, "best"),
    ],
)
def test_n_of_m(pattern, mask, repair):
    model, batches = network()
    result = sm.compress(model, batches, mask=mask, repair=repair, pattern=pattern)
    layers = check(result, model, pattern)
    assert result.rule == "uniform"
    assert result.sparsity == 1 - float(parse_pattern(pattern).density)
    assert "first" not in layers.names
    assert "first" in result.multiplications
    left = result.coverage.left_out
    assert [part.parameter for part in left if "no multiple" in part.reason] == ["first.weight"]
    # As accelerators read it: of m consecutive input channels at a position of the kernel.
    n, m = map(int, pattern.split(":"))
    for name, shape in (("grouped", (8, 4 // m, m, 9)), ("last", (5, 24 // m, m))):
        mask = result.masks[name].reshape(shape)
        assert mask.sum(dim=2).unique().tolist() == [n]


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize(
    ("rule", "mask", "repair"),
    [("global", "activation", "variance"), ("sensitivity", "gradual", "reconstruct")],
)
def test_the_rule_chooses_n_of_4_for_every_layer(rule, mask, repair):
    model, batches = network()
    result = sm.compress(model, batches, 0.4, rule, mask, repair, pattern="n:4")
    layers = check(result, model, "n:4")
    assert "first" not in layers.names
    for layer in layers:
        assert result.allocation[layer.name] * 4 % layer.size == 0
    least = max(layer.structure.least for layer in layers)
    assert abs(result.allocation.kept - kept_total(0.4, layers.total)) <= least


@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_without_a_rule_it_is_planned_and_can_be_done_again():
    model, batches = network()
    result = sm.compress(model, batches, budget="1s", pattern="2:4")
    check(result, model, "2:4")
    plan = Plan.from_dict(json.loads(json.dumps(result.plan.to_dict())))
    assert (plan.pattern, plan.allocation.rule) == ("2:4", "uniform")
    again = sm.compress(model, batches, plan=plan)
    check(again, model, "2:4")
    for key, value in result.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[key])


def test_rule_auto_searches_among_whole_blocks():
    model, batches = network()
    result = sm.compress(
        model, batches, 0.5, "auto", "magnitude", "variance", budget=14, pattern="block:2x3"
    )
    layers = check(result, model, "block:2x3")
    for trial in result.search.trials:
        for layer, count in zip(layers, trial.counts, strict=True):
            assert count in layer.structure.around(count)


def test_a_share_of_multiplications_is_reached_with_whole_channels():
    model, batches = network()
    result = sm.compress(
        model, batches, None, "erk", "magnitude", "variance", target_flops=0.6, pattern="channel"
    )
    check(result, model, "channel")
    assert 0.4 < result.kept_multiplications <= 0.6


def test_a_calibration_of_all_layers_will_do():
    model, batches = network()
    calibration = sm.calibrate(model, batches)
    for pattern, sparsity in (("2:4", None), ("channel", 0.5)):
        result = sm.compress(
            model, batches, sparsity, "uniform", "activation", "variance",
            pattern=pattern, calibration=calibration,
        )  # fmt: skip
        check(result, model, pattern)


def test_allocate_and_prune():
    model, batches = network()
    layers = sm.discover(model, batches[0])
    allocation = sm.allocate(model, layers=layers, pattern="1:2")
    assert allocation.rule == "uniform"
    pruned = sm.prune(model, allocation, pattern="1:2")
    assert dict(allocation) == {k: int(v.sum()) for k, v in sm.find_masks(pruned).items()
                                if k in allocation}  # fmt: skip
    blocks = sm.allocate(model, 0.5, "erk", layers=layers, pattern="block:4x1")
    with pytest.raises(
        SparsemendError, match=r"'first' cannot keep .* 'block:4x1': got 3; .* 0 or"
    ):
        sm.prune(model, {"first": 3}, pattern="block:4x1")
    with pytest.raises(SparsemendError, match=r"'first' cannot have the pattern: its number of in"):
        sm.prune(model, blocks, pattern="2:4")
    given = sm.compress(model, batches, 0.5, blocks, "magnitude", "variance", pattern="block:4x1")
    check(given, model, "block:4x1")
    assert given.allocation == blocks
    with pytest.raises(SparsemendError, match="the allocation is of another sparsity"):
        sm.compress(model, batches, 0.9, blocks, pattern="block:4x1")
    with pytest.raises(SparsemendError, match="names layers that the model does not have"):
        sm.compress(model, batches, 0.5, blocks, pattern="channel")


def test_a_diagnosis_prunes_whole_blocks():
    model, batches = network()
    calibration = sm.calibrate(model, batches)
    found = sm.diagnose(model, calibration, pattern="channel", densities=[0.25, 0.5, 1.0])
    assert (found.pattern, found.layers) == ("channel", ("first", "grouped", "up"))
    assert sm.Diagnosis.from_dict(found.to_dict()).pattern == "channel"
    assert "in pattern channel" in str(found)
    # Without a channel its own variance is lost, in the unit of which damage is.
    assert found.raw[0].tolist() == pytest.approx([0.75, 0.5, 0.0], abs=0.01)
    allocation = sm.allocate(model, 0.5, "rr", diagnosis=found, pattern="channel")
    assert tuple(allocation) == found.layers
    chosen = sm.allocate(model, 0.5, "erk", exclude="last", pattern="channel")
    assert tuple(chosen) == found.layers
    one = sm.diagnose(model, calibration, pattern="2:4")
    assert one.densities.tolist() == [0.5]
    assert "first" not in one.layers


def test_it_is_said():
    model, batches = network()
    result = sm.compress(model, batches, repair="none", pattern="2:4")
    values = result.to_dict()
    assert values["pattern"] == "2:4"
    assert "mask magnitude in pattern 2:4, repair none" in str(result)
    assert "in pattern 2:4" in dict(first_screen(values))["done"]
    assert "in pattern 2:4" in str(sm.report(result))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"pattern": "2:4", "rule": "erk"}, r"'2:4' gives every layer the same .*: got 'erk'"),
        ({"pattern": "2:4", "rule": "auto"}, r"cannot have rule: got 'auto'; allowed: 'uniform'"),
        ({"pattern": "2:4", "sparsity": 0.9}, r"'2:4' has another sparsity: got 0.9; .* 0.5"),
        ({"pattern": "2:4", "sparsity": 2}, "sparsity is out of range"),
        ({"pattern": "block"}, "pattern block:RxC keeps blocks"),
        ({"pattern": "2:4", "target_flops": 0.3}, "'2:4' says itself .*: got 'target_flops'"),
        ({"pattern": "channel"}, "the budget is not said once: got 'nothing'"),
        ({"pattern": "2:64"}, "no layer can have pattern '2:64'.*first: its number of input"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    model, batches = network()
    with pytest.raises(SparsemendError, match=message):
        sm.compress(model, batches, **given)


def test_channels_that_are_gone_make_a_smaller_network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
              nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
              nn.Linear(16, 5)]  # fmt: skip
    model, x = nn.Sequential(*layers).eval(), torch.randn(64, 3, 6, 6)
    result = sm.compress(model, x, 0.6, "uniform", repair="reconstruct", pattern="channel")
    assert result.layers.names == ("0", "3")
    smaller = to_module(shrink(trace(result.model, x[:1]).graph))
    widths = [m.out_channels for m in smaller.modules() if isinstance(m, nn.Conv2d)]
    kept = [int((result.masks[name].flatten(1).any(1)).sum()) for name in ("0", "3")]
    # One channel may stay for the constants of those that are gone.
    assert kept[0] <= widths[0] <= kept[0] + 1
    assert widths[1] == kept[1]
    torch.testing.assert_close(smaller(x), result.model(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU with sparse matrix units")
def test_accelerators_take_two_of_four():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 64)).eval()
    x = torch.randn(64, 128)
    result = sm.compress(model, x, repair="reconstruct", pattern="2:4")
    linear = result.model[0].half().cuda()
    expected = linear(x.half().cuda())
    weight = torch.sparse.to_sparse_semi_structured(linear.weight.detach())
    linear.weight = nn.Parameter(weight, requires_grad=False)
    torch.testing.assert_close(linear(x.half().cuda()), expected, rtol=1e-2, atol=1e-2)
