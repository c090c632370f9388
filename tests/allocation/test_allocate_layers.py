import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsemend.allocation import RULES, Rule, allocate_layers, kept_total
from sparsemend.errors import SparsemendError

from .networks import (
    cifar_resnet18,
    make_layer,
    make_layers,
    make_moments,
    networks,
    random_curves,
    random_weights,
)

SPARSITIES = (0.80, 0.90, 0.95, 0.98, 0.995)


def measured_of(layers, seed=0):
    """All that some rule needs besides weights."""
    return {"diagnosis": random_curves(layers, seed), "moments": make_moments(layers, seed)}


@pytest.mark.parametrize("sparsity", SPARSITIES)
@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=25)
@given(layers=networks, seed=st.integers(0, 1000))
def test_counts_add_up_exactly_or_the_budget_is_infeasible(rule, sparsity, layers, seed):
    sizes = {layer.name: layer.size for layer in layers}
    keep = kept_total(sparsity, sum(sizes.values()))
    weights, measured = random_weights(layers, seed), measured_of(layers, seed)
    try:
        allocation = allocate_layers(layers, weights, sparsity, rule, **measured)
    except SparsemendError as error:
        assert "the largest feasible sparsity is" in str(error)  # noqa: PT017
        assert rule == "uniform+" or keep < len(layers)
        return
    assert allocation.kept == keep
    assert list(allocation) == list(sizes)
    assert all(1 <= kept <= sizes[name] for name, kept in allocation.items())


@pytest.mark.parametrize("rule", RULES)
def test_counts_add_up_and_repeat_on_a_real_network(rule):
    layers = cifar_resnet18(stem=20)
    weights, measured = random_weights(layers), measured_of(layers)
    total = sum(layer.size for layer in layers)
    allocations = [
        allocate_layers(layers, weights, sparsity, rule, **measured) for sparsity in SPARSITIES
    ]
    for sparsity, allocation in zip(SPARSITIES, allocations, strict=True):
        assert allocation.rule == rule
        assert allocation.kept == kept_total(sparsity, total)
        assert allocation.sparsity == pytest.approx(sparsity, abs=1e-6)
    again = allocate_layers(layers, weights, SPARSITIES[0], rule, **measured)
    assert again == allocations[0]
    if rule != "rr-density":  # its proportions themselves depend on the sparsity
        for denser, sparser in itertools.pairwise(allocations):
            assert all(denser[name] >= sparser[name] for name in denser)


@pytest.mark.parametrize("rule", RULES)
def test_no_sparsity_keeps_everything(rule):
    layers = make_layers([(4, 3, 3, 3), (5, 4), (3, 5)])
    allocation = allocate_layers(layers, random_weights(layers), 0, rule, **measured_of(layers))
    assert dict(allocation) == {layer.name: layer.size for layer in layers}


def test_layers_are_taken_in_execution_order():
    layers = [make_layer("late", (1, 4), 1), make_layer("early", (1, 4), 0)]
    weights = {"late": torch.ones(1, 4), "early": torch.ones(1, 4)}
    allocation = allocate_layers(layers, weights, 0.5)
    assert list(allocation.items()) == [("early", 3), ("late", 1)]


def test_unknown_rule_names_the_known_and_the_nearest():
    with pytest.raises(SparsemendError) as caught:
        allocate_layers(make_layers([(2, 2)]), {}, 0.5, "ERKK")
    assert str(caught.value) == (
        "unknown allocation rule: got 'ERKK'; allowed: 'uniform', 'uniform+', 'global', 'erk', "
        "'lamp', 'owl', 'rr', 'rr-density', 'sensitivity'; did you mean 'erk'?"
    )


def test_unknown_option_names_the_known():
    layers = make_layers([(2, 2)])
    with pytest.raises(SparsemendError) as caught:
        allocate_layers(layers, {}, 0.5, "erk", prior="uniform")
    assert str(caught.value) == "unknown option of rule 'erk': got 'prior'; allowed: no options"
    with pytest.raises(SparsemendError, match=r"of rule 'rr-density': got 'priors'.* 'prior'"):
        allocate_layers(layers, {}, 0.5, "rr-density", priors="uniform")


def test_options_reach_the_rule():
    layers = make_layers([(40, 40), (5, 5)])
    curves = random_curves(layers)
    by_prior = {
        prior: allocate_layers(layers, {}, 0.9, "rr-density", diagnosis=curves, prior=prior)
        for prior in ("uniform", "erk")
    }
    assert by_prior["erk"]["layer1"] > by_prior["uniform"]["layer1"]


def test_an_infeasible_budget_names_the_largest_feasible_sparsity():
    with pytest.raises(SparsemendError, match=r"the largest feasible sparsity is 0\.99$"):
        allocate_layers(make_layers([(10, 10), (10, 10), (5, 20), (50, 2)]), {}, 0.998, "erk")
    allocate_layers(make_layers([(10, 10), (10, 10), (5, 20), (50, 2)]), {}, 0.99, "erk")


def test_layers_that_cannot_be_allocated():
    with pytest.raises(SparsemendError, match="there is no prunable layer"):
        allocate_layers([], {}, 0.5)
    with pytest.raises(SparsemendError, match="two layers have the same name: got 'a'"):
        allocate_layers([make_layer("a", (2, 2), 0), make_layer("a", (2, 2), 1)], {}, 0.5)
    with pytest.raises(SparsemendError, match="layer 'a' has no weights"):
        allocate_layers([make_layer("a", (0, 2), 0)], {}, 0.5)


def test_a_rule_of_ones_own_is_held_to_the_budget(monkeypatch):
    layers = make_layers([(2, 5), (2, 5)])
    mine = Rule("mine", lambda problem, *, first=1: (first, problem.keep - 1), needs="shapes")
    monkeypatch.setitem(RULES, "mine", mine)
    assert dict(allocate_layers(layers, {}, 0.5, "mine")) == {"layer0": 1, "layer1": 9}
    with pytest.raises(SparsemendError, match=r"'mine' do not add up: got 11; .* exactly 10"):
        allocate_layers(layers, {}, 0.5, "mine", first=2)
    monkeypatch.setitem(RULES, "mine", Rule("mine", lambda problem: [problem.keep], needs="shapes"))
    with pytest.raises(SparsemendError, match=r"no count for each layer: got \[10\]; .* 2 counts"):
        allocate_layers(layers, {}, 0.5, "mine")
