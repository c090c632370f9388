"""The public allocation on the built-in networks: exact budgets, layer order, errors."""

import functools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.allocation.networks import make_moments
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError, SparsemendWarning
from sparsemend.allocation import kept_total

SPARSITIES = (0.80, 0.90, 0.95, 0.98, 0.995)
RULES = sm.rule_names()


@functools.cache
def network(name):
    """The built-in network; the wide ones a quarter as wide."""
    torch.manual_seed(0)
    wide = ("cifar_resnet18", "cifar_resnet34", "cifar_resnet50", "vgg16_bn")
    return sm.models.create(name, width=16 if name in wide else None)


def made_up(layers, seed=0, points=9):
    """A diagnosis with random curves that fall to 0 at density 1."""
    rng = np.random.default_rng(seed)
    densities = np.geomspace(0.01, 1, points)
    densities[-1] = 1
    raw = rng.uniform(0.5, 2, (len(layers), 1)) * (1 - densities) ** rng.uniform(
        1, 4, (len(layers), 1)
    )
    rr = rng.uniform(0.1, 1.2, raw.shape)
    residual = np.sort(raw * rr, axis=1)[:, ::-1]
    rr[:, -1] = np.nan
    heard = rng.exponential(size=len(layers))
    return sm.Diagnosis(
        tuple(layers), densities, raw, residual, rr, repair="variance", sensitivities=heard
    )


def all_made_up(model, seed=0):
    """What any rule may need: a diagnosis, and a calibration on inputs of random scales."""
    layers = sm.discover(model)
    calibration = sm.Calibration(layers, make_moments(layers, seed), 1)
    return {"diagnosis": made_up(layers.names, seed), "calibration": calibration}


def check_budget(name, rule, sparsity, seed=0):
    model = network(name)
    layers = sm.discover(model)
    try:
        allocation = sm.allocate(model, sparsity, rule, **all_made_up(model, seed))
    except SparsemendError as error:
        # uniform+ holds the first convolution dense and a fifth of the classifier.
        assert rule == "uniform+", error  # noqa: PT017
        floor = layers[0].size + math.ceil(layers[-1].size / 5) + len(layers) - 2
        assert kept_total(sparsity, layers.total) < floor
        assert f"allowed: {floor} to {layers.total}" in str(error)  # noqa: PT017
        return
    assert allocation.kept == kept_total(sparsity, layers.total)
    assert allocation.kept == sum(allocation.values())
    assert allocation.total == layers.total == sum(layer.size for layer in layers)
    assert list(allocation) == list(layers.names)
    for layer in layers:
        assert 1 <= allocation[layer.name] <= layer.size


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", sm.models.names())
def test_budget_is_exact_on_every_network(name, rule):
    for sparsity in SPARSITIES:
        check_budget(name, rule, sparsity)


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=10)
@given(
    name=st.sampled_from(("digits", "cifar_resnet20")),
    sparsity=st.floats(0, 0.995),
    seed=st.integers(0, 1000),
)
def test_budget_is_exact_at_every_sparsity(rule, name, sparsity, seed):
    check_budget(name, rule, sparsity, seed)


def test_prunable_weights_are_those_of_convolutions_and_linear_layers():
    model = network("cifar_resnet20")
    kinds = nn.Conv2d | nn.Linear
    expected = sum(m.weight.numel() for m in model.modules() if isinstance(m, kinds))
    assert sm.allocate(model, 0.5).total == expected


class Backwards(nn.Module):
    """Registered in another order than run: c, b, a are run a, b, c."""

    def __init__(self) -> None:
        super().__init__()
        self.c, self.b, self.a = nn.Linear(20, 6), nn.Conv2d(8, 20, 3), nn.Conv2d(3, 8, 3)

    def forward(self, x):
        return self.c(self.b(self.a(x).relu()).relu().mean(dim=(2, 3)))


def test_order_is_that_of_the_diagnosis_or_of_the_layers_given():
    torch.manual_seed(0)
    model, x = Backwards(), torch.randn(4, 3, 8, 8)
    calibration = sm.calibrate(model, x)
    diagnosis = sm.diagnose(model, calibration)
    assert list(sm.allocate(model, 0.5)) == ["c", "b", "a"]
    given_layers = sm.allocate(model, 0.5, "uniform+", layers=calibration.layers)
    diagnosed = sm.allocate(model, 0.5, "uniform+", diagnosis=diagnosis)
    assert dict(diagnosed) == dict(given_layers)
    for allocation in (given_layers, diagnosed):
        assert list(allocation) == ["a", "b", "c"]
        assert allocation["a"] == allocation.sizes["a"]  # the first convolution is dense


def test_tied_layers_count_once():
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 6), nn.Linear(6, 6)
            self.first.weight = self.second.weight

        def forward(self, x):
            return self.first(self.second(x).relu())

    model = Tied()
    diagnosis = sm.diagnose(model, sm.calibrate(model, torch.randn(20, 6)))
    assert dict(sm.allocate(model, 0.5, "rr", diagnosis=diagnosis)) == {"first": 18}
    assert dict(sm.allocate(model, 0.5)) == {"first": 18}


def test_a_diagnosis_of_fewer_layers_is_a_warning():
    model = network("digits")
    names = sm.discover(model).names
    with pytest.warns(SparsemendWarning, match="^not in the diagnosis, .* do not count: fc$"):
        allocation = sm.allocate(model, 0.5, "rr", diagnosis=made_up(names[:-1]))
    assert list(allocation) == list(names[:-1])


@pytest.mark.parametrize("rule", ["erk", "rr", "rr-density"])
def test_a_diagnosis_of_other_layers(rule):
    model = network("digits")
    with pytest.raises(SparsemendError) as caught:
        sm.allocate(model, 0.5, rule, diagnosis=made_up(["conv1", "features.0"]))
    assert str(caught.value).startswith(
        "the diagnosis names layers that the model does not have: got ['features.0']; "
        "allowed: conv1, layer1.0.conv1, "
    )
    assert str(caught.value).endswith("diagnose the network that is to be pruned")


@pytest.mark.parametrize("sparsity", [1, 1.0, -0.1, 1.5, math.nan, math.inf, 95])
def test_sparsity_out_of_range(sparsity):
    with pytest.raises(SparsemendError) as caught:
        sm.allocate(network("digits"), sparsity)
    assert str(caught.value) == (
        f"sparsity is out of range: got {sparsity!r}; allowed: a fraction in [0, 1); 95 % is 0.95"
    )


@pytest.mark.parametrize("rule", RULES)
def test_infeasible_budget(rule):
    model = network("digits")
    layers = sm.discover(model)
    with pytest.raises(SparsemendError, match=r"the largest feasible sparsity is 0\.9") as caught:
        sm.allocate(model, 0.9999, rule, **all_made_up(model))
    assert f"got {kept_total(0.9999, layers.total)}" in str(caught.value)


@pytest.mark.parametrize("rule", ["rr", "rr-density", "sensitivity"])
def test_rules_that_need_a_diagnosis(rule):
    with pytest.raises(SparsemendError, match=f"rule '{rule}' needs a diagnosis: got None"):
        sm.allocate(network("digits"), 0.9, rule)


def test_options():
    model = network("digits")
    diagnosis = made_up(sm.discover(model).names)
    by_prior = [
        sm.allocate(model, 0.9, "rr-density", diagnosis=diagnosis, prior=prior)
        for prior in ("uniform", "erk")
    ]
    assert by_prior[0] != by_prior[1]
    with pytest.raises(SparsemendError, match="unknown option of rule 'erk': got 'prior'"):
        sm.allocate(model, 0.9, "erk", prior="uniform")


def test_unknown_rule():
    with pytest.raises(SparsemendError, match=r"unknown allocation rule: got 'snip'; .*'lamp'"):
        sm.allocate(network("digits"), 0.9, "snip")


def test_auto_is_no_rule_of_weights():
    with pytest.raises(SparsemendError) as caught:
        sm.allocate(network("digits"), 0.9, "auto")
    assert str(caught.value) == (
        "rule 'auto' is a search that repairs, not a rule of weights alone; allowed: "
        f"{', '.join(RULES)}; use compress(..., rule='auto'); its result has the allocation"
    )
    assert "auto" not in RULES


def test_a_model_without_prunable_layers():
    with pytest.raises(SparsemendError) as caught:
        sm.allocate(nn.Sequential(nn.ReLU(), nn.BatchNorm2d(3)), 0.9)
    assert str(caught.value) == (
        "the model has no prunable layer; "
        "allowed: at least one Conv1d/2d/3d, ConvTranspose1d/2d/3d or Linear"
    )


def test_the_model_is_unchanged():
    model = sm.models.create("digits")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for rule in RULES:
        sm.allocate(model, 0.9, rule, **all_made_up(model))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert model.training


def check_proportions(found, base, forced):
    """Layers that were not forced and are not full have one factor, up to rounding."""
    free = [name for name in base if name not in forced and found.densities[name] < 1]
    lowest = max((found[name] - 1) / base[name] for name in free)
    highest = min((found[name] + 1) / base[name] for name in free)
    assert len(free) > 10
    assert lowest <= highest


class TestForcedLayers:
    def test_projections_of_erk_at_the_densities_of_lamp(self):
        model = network("cifar_resnet20")
        layers = sm.discover(model, torch.randn(2, 3, 32, 32))
        found = sm.allocate(model, 0.9, "erk[projection=lamp]", layers=layers)
        erk, lamp = (sm.allocate(model, 0.9, rule, layers=layers) for rule in ("erk", "lamp"))
        forced = ("layer2.0.downsample.0", "layer3.0.downsample.0")
        assert found.kept == erk.kept
        assert found.rule == "erk[projection=lamp]"
        assert all(found[name] == lamp[name] != erk[name] for name in forced)
        check_proportions(found, erk, forced)

    def test_options_are_those_of_the_base_rule(self):
        model = network("cifar_resnet20")
        diagnosis = made_up(sm.discover(model).names)
        found, plain = (
            sm.allocate(model, 0.9, rule, diagnosis=diagnosis, prior="erk")
            for rule in ("rr-density[fc=erk]", "rr-density")
        )
        assert found["fc"] == sm.allocate(model, 0.9, "erk")["fc"]
        check_proportions(found, plain, ("fc",))

    @pytest.mark.parametrize(
        ("rule", "message"),
        [
            ("erk[fc=snip]", "unknown allocation rule: got 'snip'"),
            ("erk[fc=rr]", "rule 'rr' needs a diagnosis"),
            ("erk[FC=lamp]", "no layer of the network is meant by this pattern: got 'FC'"),
            ("erk[projection=lamp]", "projections are found with inputs"),
        ],
    )
    def test_refusals(self, rule, message):
        with pytest.raises(SparsemendError) as caught:
            sm.allocate(network("cifar_resnet20"), 0.9, rule)
        assert message in str(caught.value)
