"""The public repair: what it leaves alone, which layers it covers, and what it refuses."""

import copy

import pytest
import torch
from tests.repairs.networks import CHANNELWISE, conv_bn, images, perceptron, prune_half, same_state
from torch import nn

from sparsemend import SparsemendError, SparsemendWarning, recalibrate, repair

FORMULAS = ("none", "variance", "batchnorm", "batchnorm-ema", "shrinkage+batchnorm-ema")


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("formula", FORMULAS)
def test_both_networks_stay_as_they_are(formula, training):
    dense = conv_bn().train(training)
    pruned = prune_half(dense)
    before = copy.deepcopy((dense, pruned))
    repaired = repair(pruned, dense, images(), formula)
    assert repaired is not pruned
    for model, old in zip((dense, pruned), before, strict=True):
        assert same_state(model, old)
        assert all(m.training == training for m in model.modules())
        assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert [m.training for m in repaired.modules()] == [m.training for m in dense.modules()]
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in repaired.modules())


@pytest.mark.parametrize("formula", FORMULAS)
def test_in_place(formula):
    dense = conv_bn()
    pruned = prune_half(dense)
    expected = repair(pruned, dense, images(), formula)
    assert repair(pruned, dense, images(), formula, inplace=True) is pruned
    assert same_state(pruned, expected)


@pytest.mark.parametrize("formula", [*CHANNELWISE, *FORMULAS])
def test_keys_are_the_original_ones_and_results_repeat(formula):
    dense = conv_bn()
    pruned = prune_half(dense)
    first, second = (repair(pruned, dense, images(), formula) for _ in range(2))
    assert same_state(first, second)
    conv_bn(seed=1).load_state_dict(first.state_dict(), strict=True)


def test_batches_of_any_form():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = nn.Linear(6, 4), nn.Linear(3, 4)

        def forward(self, left, right):
            return self.one(left) + self.other(right)

    torch.manual_seed(0)
    dense = Sum()
    pruned, left, right = prune_half(dense), torch.randn(20, 6), torch.randn(20, 3)
    expected = repair(pruned, dense, [(left, right)])
    keywords = repair(pruned, dense, [{"left": left, "right": right}])
    both = repair(pruned, dense, (pair for pair in [((left,), {"right": right})]))
    assert same_state(keywords, expected)
    assert same_state(both, expected)


def test_formula_runs_its_parts_in_order():
    dense = conv_bn()
    pruned, batches = prune_half(dense), [images()]
    together = repair(pruned, dense, batches, "variance+batchnorm-ema")
    # Recalibration moves the inputs of the classifier, so the operator leaves it alone.
    apart = repair(pruned, dense, batches, "variance")
    apart[-1].load_state_dict(pruned[-1].state_dict())
    recalibrate(apart, batches, "ema")
    assert same_state(together, apart)


@pytest.mark.filterwarnings("ignore:layers that got a bias")
@pytest.mark.parametrize("scope", ["sequential", "one-shot"])
@pytest.mark.parametrize(
    ("formula", "covered"),
    [
        ("variance", ["0", "3", "6", "11"]),
        ("shrinkage", ["3", "6"]),
        # With recalibration, only layers whose own BatchNorm absorbs the change.
        ("variance+batchnorm-ema", ["0", "3"]),
        ("affine+batchnorm", ["0", "3"]),
        # Pooled statistics would cancel what the operator does there.
        ("variance+batchnorm", []),
        ("shrinkage+batchnorm-ema", ["3"]),
        ("batchnorm", []),
    ],
)
def test_covered_layers(formula, covered, scope):
    dense = conv_bn(norms=("batch", "batch", "group"))
    pruned = prune_half(dense)
    repaired = repair(pruned, dense, images(), formula, scope=scope)
    changed = [
        name
        for name, module in pruned.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
        and not torch.equal(module.weight, repaired.get_submodule(name).weight)
    ]
    assert changed == covered


def test_layers_that_get_a_bias_are_named():
    dense = conv_bn(norms=("batch", "group", "none"))
    pruned = prune_half(dense)
    with pytest.warns(SparsemendWarning, match="^layers that got a bias parameter: 3, 6$"):
        repaired = repair(pruned, dense, images(), new_biases=True)
    assert repaired.state_dict().keys() - pruned.state_dict().keys() == {"3.bias", "6.bias"}
    assert repair(pruned, dense, images()).state_dict().keys() == pruned.state_dict().keys()
    # A second repair finds the biases there and the dense network without them.
    again = repair(repaired, dense, images())
    assert again.state_dict().keys() == repaired.state_dict().keys()


def test_unknown_scope_and_formula():
    model = perceptron()
    with pytest.raises(SparsemendError) as caught:
        repair(model, model, torch.zeros(2, 6), scope="parallel")
    assert str(caught.value) == (
        "unknown repair scope: got 'parallel'; allowed: sequential, one-shot"
    )
    with pytest.raises(SparsemendError, match="unknown repair: got 'foo'"):
        repair(model, model, torch.zeros(2, 6), "foo")


@pytest.mark.parametrize(
    ("batches", "text"),
    [
        ([], "batches is empty; allowed: an iterable of at least one batch"),
        (torch.zeros(0, 6), "batches is empty"),
        ([torch.zeros(3, 6), torch.zeros(0, 6)], r"batches\[1\] holds no inputs"),
        (iter(()), "a generator can be used only once"),
        (
            [(torch.zeros(3, 6), torch.tensor([0, 1, 2]))],
            r"batches\[0\] carries labels: a pair of ",
        ),
        ([torch.zeros(3, 6), torch.full((3, 6), torch.nan)], r"batches\[1\] holds NaN or infinite"),
        ([torch.zeros(3, 6), torch.full((3, 6), torch.inf)], r"batches\[1\] holds NaN or infinite"),
        ([torch.zeros(3, 5)], r"the network cannot run on this batch \(float32 \[\d, 5\]\)"),
        ([torch.zeros(3, 6), torch.zeros(3, 5)], r"cannot run on .*batches\[1\]"),
    ],
)
def test_batches_that_cannot_be_used(batches, text):
    dense = perceptron()
    pruned = prune_half(dense)
    before = copy.deepcopy(pruned)
    with pytest.raises(SparsemendError, match=text):
        repair(pruned, dense, batches, inplace=True)
    assert same_state(pruned, before)


def test_networks_that_do_not_belong_together():
    pruned, x = perceptron(), torch.zeros(2, 6)
    with pytest.raises(SparsemendError) as caught:
        repair(pruned, perceptron(sizes=(6, 7, 5)), x)
    assert str(caught.value) == (
        "the pruned and the dense network do not belong together: parameters differ in shape: "
        "got ['0.weight', '0.bias', '2.weight']; pass the network that this one was pruned from"
    )
    for dense in (perceptron(sizes=(6, 8)), perceptron(sizes=(6, 8, 5, 3))):
        with pytest.raises(SparsemendError, match="do not belong together"):
            repair(pruned, dense, x)


def test_networks_in_the_other_order():
    dense = perceptron()
    with pytest.raises(SparsemendError, match=r"has no zeros, but the dense.*pruned network first"):
        repair(dense, prune_half(dense), torch.randn(9, 6), "variance")


def test_recalibration_without_batchnorm_is_refused_before_any_work():
    dense = perceptron()
    pruned = prune_half(dense)
    before = copy.deepcopy(pruned)
    with pytest.raises(SparsemendError, match="no BatchNorm with running statistics"):
        repair(pruned, dense, torch.randn(9, 6), "variance+batchnorm", inplace=True)
    assert same_state(pruned, before)


def test_a_network_without_prunable_layers():
    model = nn.Sequential(nn.BatchNorm1d(6), nn.ReLU())
    with pytest.raises(SparsemendError, match="the model has no prunable layer that runs"):
        repair(model, model, torch.zeros(3, 6))


@pytest.mark.parametrize("at", ["pruned", "dense"])
@pytest.mark.parametrize("formula", ["variance", "batchnorm", "none"])
def test_networks_of_nan_are_refused_before_any_work(at, formula):
    dense = conv_bn()
    pruned = prune_half(dense)
    with torch.no_grad():
        (pruned if at == "pruned" else dense)[-1].bias[0] = torch.nan
    before = copy.deepcopy(pruned)
    with pytest.raises(SparsemendError, match="layer '11' has NaN or infinite biases: 1 of 5 is"):
        repair(pruned, dense, images(), formula, inplace=True)
    if at == "dense":
        assert same_state(pruned, before)


@pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
@pytest.mark.parametrize("formula", ["variance", "reconstruct", "affine+batchnorm"])
def test_an_error_half_way_gives_the_pruned_network_back(formula, monkeypatch):
    """Without the biases that the layers before it got."""
    dense = conv_bn(norms=("none", "batch"))
    pruned = prune_half(dense)
    before, names = copy.deepcopy(pruned), [name for name, _ in pruned.named_parameters()]

    def failing(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsemend.repairs.formula.check_network", failing)
    with pytest.raises(KeyboardInterrupt):
        repair(pruned, dense, images(), formula, inplace=True)
    assert same_state(pruned, before)
    assert [name for name, _ in pruned.named_parameters()] == names
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in pruned.modules())
