"""Recalibration against oracles: pooled moments of what each BatchNorm sees, and PyTorch's own."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

import sparsemend as sm
from sparsemend import SparsemendError, SparsemendWarning, recalibrate, repair
from sparsemend.masks import apply_masks, choose_masks
from sparsemend.operators import OPERATORS
from sparsemend.repairs import Support, Terms
from sparsemend.repairs.channelwise import covered_layers, repair_channelwise
from sparsemend.session import Session

from .networks import conv_bn, images, moments, perceptron, prune_half, same_state

MODES = ("exact", "ema")


def norms_of(model):
    return {n: m for n, m in model.named_modules() if isinstance(m, _BatchNorm)}


def norm_inputs(model, batches):
    """BatchNorm → what it is given over all batches, [positions, C] for each batch."""
    seen = {name: [] for name in norms_of(model)}
    handles = [
        norm.register_forward_pre_hook(
            lambda module, args, name=name: seen[name].append(  # noqa: ARG005
                args[0].movedim(1, -1).reshape(-1, args[0].shape[1]).double()
            )
        )
        for name, norm in norms_of(model).items()
    ]
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return seen


def uneven(x):
    """Unequal batches whose means differ."""
    return [x[:2] + 4, x[2:5] - 3, x[5:]]


def statistics(model):
    return {
        name: value
        for name, value in model.state_dict().items()
        if "running_" in name.split(".")[-1]
    }


class Residual(nn.Module):
    """Two branches, a 1-D norm behind a linear layer, and norms that take no part."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.group, self.batch_only = (
            nn.GroupNorm(2, 6),
            nn.BatchNorm2d(6, track_running_stats=False),
        )
        self.fc, self.bn3, self.drop = nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = x + self.batch_only(self.group(self.bn2(self.conv2(x))))
        return self.bn3(self.fc(self.drop(x.mean(dim=(2, 3)))))


def residual(seed=0):
    torch.manual_seed(seed)
    return Residual().eval()


@pytest.mark.parametrize("network", [conv_bn, residual])
def test_exact_statistics_are_the_pooled_moments_of_the_recalibrated_network(network):
    model, batches = network(), uneven(images(12))
    recalibrate(model, batches)
    differs = 0.0
    for name, seen in norm_inputs(model, batches).items():
        norm = model.get_submodule(name)
        if norm.running_mean is None:
            continue
        mean, variance = moments(torch.cat(seen))
        torch.testing.assert_close(norm.running_mean.double(), mean, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var.double(), variance, rtol=1e-4, atol=1e-5)
        averaged = torch.stack([moments(part)[1] for part in seen]).mean(dim=0)
        differs = max(differs, float((averaged / variance - 1).abs().max()))
    assert differs > 0.1  # momentum=None would have averaged the batches' variances


@settings(max_examples=10)
@given(st.lists(st.integers(1, 11), max_size=4, unique=True).map(sorted))
def test_exact_does_not_depend_on_the_cuts(cuts):
    x = images(12)
    whole, cut = conv_bn(), conv_bn()
    recalibrate(whole, [x])
    recalibrate(cut, list(x.tensor_split(cuts)))
    torch.testing.assert_close(statistics(cut), statistics(whole), rtol=1e-4, atol=1e-5)


def test_one_tensor_is_a_data_set():
    x = images(12)
    one, other = conv_bn(), conv_bn()
    recalibrate(one, x)
    recalibrate(other, [x])
    assert same_state(one, other)


def test_a_norm_that_runs_twice_pools_both_calls():
    class Siamese(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.BatchNorm1d(6), nn.Linear(6, 2)

        def forward(self, x):
            return self.fc(self.norm(x) - self.norm(3 * x + 1))

    model, x = Siamese().eval(), torch.randn(20, 6)
    recalibrate(model, list(x.split(7)))
    mean, variance = moments(torch.cat([x, 3 * x + 1]))
    torch.testing.assert_close(model.norm.running_mean.double(), mean, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.norm.running_var.double(), variance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize(("momentum", "updates"), [(0.1, 20), (0.3, 4), (0.05, 3)])
@pytest.mark.parametrize("network", [conv_bn, residual])
def test_ema_is_what_pytorch_does(network, momentum, updates, reset):
    model, batches = network(), uneven(images(12))
    expected = copy.deepcopy(model)
    for norm in norms_of(expected).values():
        if norm.running_mean is not None:
            if reset:
                norm.reset_running_stats()
            norm.momentum = momentum
            norm.train()
    with torch.no_grad():
        for index in range(updates):
            expected(batches[index % len(batches)])
    recalibrate(model, batches, "ema", momentum=momentum, updates=updates, reset=reset)
    assert same_state(model, expected)


def test_ema_defaults_are_those_of_the_published_runs():
    model, explicit, batches = conv_bn(), conv_bn(), uneven(images(12))
    recalibrate(model, batches, "ema")
    recalibrate(explicit, batches, "ema", momentum=0.1, updates=20, reset=False)
    assert same_state(model, explicit)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("training", [True, False])
def test_only_running_statistics_change(mode, training):
    model = residual().train(training)
    model.bn2.momentum, model.bn1.momentum = 0.37, None
    model.drop.train(not training)
    before, flags = copy.deepcopy(model), [m.training for m in model.modules()]
    recalibrate(model, uneven(images(12)), mode)
    changed = {
        k for k, v in model.state_dict().items() if not torch.equal(v, before.state_dict()[k])
    }
    assert {f"bn{i}.running_{what}" for i in (1, 2, 3) for what in ("mean", "var")} <= changed
    assert all("running_" in key or "num_batches_tracked" in key for key in changed)
    assert [m.training for m in model.modules()] == flags
    assert (model.bn1.momentum, model.bn2.momentum, model.bn3.momentum) == (None, 0.37, 0.1)
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("mode", MODES)
def test_a_network_without_batchnorm(mode):
    text = (
        "the network has no BatchNorm with running statistics to recalibrate; "
        "use a repair without batchnorm, such as 'variance'"
    )
    for model in (perceptron(), conv_bn(norms=("group",))):
        with pytest.raises(SparsemendError) as caught:
            recalibrate(model, [torch.zeros(1)], mode)
        assert str(caught.value) == text


@pytest.mark.parametrize("mode", MODES)
def test_batches_that_cannot_be_used(mode):
    model = conv_bn()
    before = copy.deepcopy(model)
    for batches, text in [
        ([], "batches is empty"),
        ([(images(3), torch.tensor([0, 1, 2]))], r"batches\[0\] carries labels"),
        ([images(2), images(2) / 0], r"batches\[1\] holds NaN or infinite"),
        ([images(2)[:, :3]], "cannot run on this batch"),
    ]:
        with pytest.raises(SparsemendError, match=text):
            recalibrate(model, batches, mode)
    assert same_state(model, before)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"momentum": float("nan")},
            "momentum is out of range: got nan; allowed: a number above 0",
        ),
        ({"momentum": 0}, "momentum is out of range: got 0"),
        ({"momentum": 1.5}, "momentum is out of range: got 1.5"),
        ({"momentum": None}, "momentum is of the wrong kind: got None"),
        ({"updates": 0}, "updates is out of range: got 0"),
        ({"updates": 2.0}, "updates is of the wrong kind: got 2.0"),
    ],
)
def test_options_out_of_range(options, text):
    model = conv_bn()
    before = copy.deepcopy(model)
    with pytest.raises(SparsemendError, match=text):
        recalibrate(model, images(), "ema", **options)
    assert same_state(model, before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("mode", MODES)
def test_an_error_half_way_changes_nothing(mode, training):
    model = residual().train(training)
    model.fc.weight.requires_grad_(False)
    before, random = copy.deepcopy(model), torch.get_rng_state()
    with pytest.raises(SparsemendError, match="cannot run on this batch"):
        recalibrate(model, [images(6), images(6), images(6)[:, :3]], mode)
    assert same_state(model, before)
    assert all(m.training == training for m in model.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert [m.momentum for m in norms_of(model).values()] == [0.1] * 4
    assert [p.requires_grad for p in model.parameters()] == [
        p.requires_grad for p in before.parameters()
    ]
    assert torch.equal(torch.get_rng_state(), random)


def test_a_batch_that_gives_one_value_per_channel_is_named_under_ema():
    model = residual()
    before = copy.deepcopy(model)
    with pytest.raises(SparsemendError) as caught:
        recalibrate(model, list(images(9).split(4)), "ema")
    assert str(caught.value) == (
        "batches[2] gives BatchNorm 'bn3' a single value per channel, which has no variance; "
        "allowed: at least two; leave that batch out, or use larger batches or mode 'exact'"
    )
    assert same_state(model, before)


@pytest.mark.parametrize("count", [1, 2])
def test_a_norm_that_sees_too_little_keeps_its_statistics(count):
    model = residual()
    before = copy.deepcopy(model)
    text = rf"fewer than 3 values: bn3 \({count}\); calibrate with more inputs"
    with pytest.warns(SparsemendWarning, match=text):
        recalibrate(model, list(images(count).split(1)))
    assert torch.equal(model.bn3.running_mean, before.bn3.running_mean)
    assert torch.equal(model.bn3.running_var, before.bn3.running_var)
    assert not torch.equal(model.bn2.running_var, before.bn2.running_var)
    recalibrate(model, images(3))  # enough: no warning
    assert not torch.equal(model.bn3.running_var, before.bn3.running_var)


@pytest.mark.parametrize("mode", MODES)
def test_statistics_beyond_float32_are_refused_by_name(mode):
    model = conv_bn()
    before = copy.deepcopy(model)
    with pytest.raises(SparsemendError, match=r"(BatchNorm|layer) '1'"):
        recalibrate(model, images(8) * 1e30, mode)
    assert same_state(model, before)


def test_unknown_mode():
    with pytest.raises(SparsemendError, match="mode: got 'median'; allowed: exact, ema"):
        recalibrate(conv_bn(), images(), "median")


def distance(one, other, batches):
    """Relative distance of two networks' logits."""
    with torch.no_grad():
        ours, theirs = (torch.cat([m(x) for x in batches]).double() for m in (one, other))
    return float((ours - theirs).norm() / theirs.norm())


def one_after_the_other(pruned, dense, batches, operator, scope):
    """The operator in front of every BatchNorm, really folded in, then the recalibration.

    The formula ``operator+batchnorm`` skips what the recalibration cancels; this does not.
    """
    model, session, operator = copy.deepcopy(pruned), Session(dense, batches), OPERATORS[operator]
    chosen = covered_layers(model, session.layers, operator, recalibrated=True)
    repair_channelwise(session, model, chosen, operator, Terms(Support({}, {}), scope))
    sm.recalibrate(model, batches)
    return model


@pytest.mark.parametrize("scope", ["sequential", "one-shot"])
@pytest.mark.parametrize("operator", ["none", "mean", "variance", "layerwise", "shrinkage"])
def test_positive_scales_and_shifts_are_cancelled_by_exact_recalibration(operator, scope):
    dense = conv_bn(width=16)
    pruned, batches = prune_half(dense, 0.7), list(images(40).split(16))
    plain = repair(pruned, dense, batches, "batchnorm")
    both = one_after_the_other(pruned, dense, batches, operator, scope)
    assert distance(both, plain, batches) < 1e-3
    assert distance(plain, pruned, batches) > 0.1
    formula = repair(pruned, dense, batches, f"{operator}+batchnorm", scope=scope)
    assert distance(formula, plain, batches) < 1e-6
    # Without recalibration, or under ema, the operator makes a difference.
    if operator not in ("none", "mean"):
        for formula in (operator, f"{operator}+batchnorm-ema"):
            assert distance(repair(pruned, dense, batches, formula), plain, batches) > 1e-2


@pytest.fixture(scope="module")
def cifar100(shared_data):
    """cifar100_resnet20, its 90 % pruned copy, and calibration batches."""
    loaded = sm.models.load("cifar_resnet20", shared_data / "weights/cifar100_resnet20.safetensors")
    data = sm.data.load(shared_data / "cifar100", mean=loaded.mean, std=loaded.std)
    pruned = copy.deepcopy(loaded.model)
    apply_masks(pruned, choose_masks(pruned, sm.allocate(pruned, 0.9)))
    return loaded.model, pruned, list(data.calibration(64, seed=0).split(32))


# The norms' eps is all that keeps scales in front of them from cancelling exactly: channels
# that lost most of their variance feel it.
@pytest.mark.parametrize(("eps", "tolerance"), [(1e-5, 4e-3), (1e-10, 1e-5)])
def test_cancellation_on_a_real_network(cifar100, eps, tolerance):
    dense, pruned = copy.deepcopy(cifar100[:2])
    batches = cifar100[2]
    for norm in (*norms_of(dense).values(), *norms_of(pruned).values()):
        norm.eps = eps
    plain = repair(pruned, dense, batches, "batchnorm")
    operators = ("variance", "layerwise", "shrinkage") if eps == 1e-10 else ("variance",)
    for operator in operators:
        both = one_after_the_other(pruned, dense, batches, operator, "sequential")
        assert distance(both, plain, batches) < tolerance
        formula = repair(pruned, dense, batches, f"{operator}+batchnorm")
        assert distance(formula, plain, batches) < 1e-6
