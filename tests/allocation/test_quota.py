"""Budgets of costs: every rule ends at the most that is not too expensive."""

import dataclasses
import operator
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sparsemend.allocation import (
    RULES,
    CostQuota,
    WeightQuota,
    added_up,
    allocate_layers,
    force_layers,
    round_to_budget,
)
from sparsemend.errors import SparsemendError

from .networks import (
    flat_layers,
    make_layers,
    make_moments,
    networks,
    random_curves,
    random_weights,
)

PRICES = (64, 1, 7, 16, 3, 256, 2, 5)


def quota(layers, share, prices=PRICES, **options):
    """A share of what all weights cost, each layer's at a price of its own."""
    sizes = tuple(layer.size for layer in layers)
    prices = tuple(Fraction(prices[i]) for i in range(len(sizes)))
    total = sum(map(operator.mul, sizes, prices))
    costs = tuple(partial(operator.mul, price) for price in prices)
    return CostQuota(sizes, added_up(costs), prices, Fraction(str(share)) * total, **options)


def cost(limit, allocation):
    return limit.cost(tuple(allocation.values()))


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=15)
@given(layers=networks, share=st.sampled_from((0.05, 0.3, 0.9, 1)), seed=st.integers(0, 1000))
def test_no_rule_spends_more_and_none_could_spend_one_weight_more(rule, layers, share, seed):
    weights, curves = random_weights(layers, seed), random_curves(layers, seed)
    limit = quota(layers, share)
    try:
        allocation = allocate_layers(
            layers, weights, limit, rule, diagnosis=curves, moments=make_moments(layers, seed)
        )
    except SparsemendError as error:
        assert "the budget cannot be reached" in str(error)  # noqa: PT017
        assert rule == "uniform+" or sum(limit.prices) > limit.limit
        return
    spare = limit.limit - cost(limit, allocation)
    assert spare >= 0
    assert all(1 <= kept <= allocation.sizes[name] for name, kept in allocation.items())
    if allocation.kept < allocation.total:
        # A further weight has a price, and rounding may move one of every other layer, both ways.
        assert spare < 3 * sum(limit.prices)


def test_a_price_of_one_is_a_number_of_weights():
    layers = make_layers([(8, 4, 3, 3), (16, 8, 3, 3), (10, 16)])
    weights, curves = random_weights(layers), random_curves(layers)
    plain = WeightQuota.of(layers, 0.75)
    priced = quota(layers, 0.25, prices=(1, 1, 1))
    for rule in RULES:
        one, other = (
            allocate_layers(
                layers, weights, budget, rule, diagnosis=curves, moments=make_moments(layers)
            )
            for budget in (plain, priced)
        )
        assert dict(one) == dict(other)
    assert priced.sparsity == plain.sparsity == 0.75


def test_rules_that_rank_prefer_weights_that_are_cheap():
    weights = [torch.tensor([9.0, 4.0, 1.0]), torch.tensor([8.0, 5.0, 2.0])]
    layers, named = flat_layers(weights)
    limit = quota(layers, 0.5, prices=(1, 16))
    # Of 25.5 the first layer's second weight takes 1, of which the second layer's takes 16.
    assert tuple(allocate_layers(layers, named, limit, "global").values()) == (2, 1)
    assert tuple(allocate_layers(layers, named, limit, "lamp").values()) == (2, 1)
    same = dataclasses.replace(limit, prices=())
    assert tuple(allocate_layers(layers, named, same, "global").values()) == (1, 1)
    assert tuple(allocate_layers(layers, named, same, "lamp").values()) == (1, 1)


def test_least_damage_for_a_cost():
    """On convex curves no exchange of what is spent heals more."""
    layers = make_layers([(20, 10), (20, 10)])
    curves = random_curves(layers)
    grid = np.array([0.25, 0.5, 0.75, 1.0])
    object.__setattr__(curves, "densities", grid)
    object.__setattr__(curves, "residual", np.array([[0.6, 0.3, 0.1, 0.0]] * 2))
    limit = quota(layers, 0.5, prices=(1, 4))
    cheap, dear = allocate_layers(layers, {}, limit, "rr", diagnosis=curves).values()
    # Slopes 1.2 and 0.8 of the first layer, 0.3 of the second's first step: the first is dense
    # before the second goes beyond its first segment.
    assert cheap == 200
    assert dear == 75


def test_what_cannot_be_reached_says_what_can():
    layers = make_layers([(5, 4), (5, 4)])
    limit = quota(layers, 0.01, prices=(10, 10), name="target_x", text="{:g} euros".format)
    with pytest.raises(SparsemendError, match=r"target_x .*got '4 euros'; allowed: at least 20"):
        allocate_layers(layers, {}, limit, "uniform")
    dear = quota(layers, 1, prices=(10, 10), fixed=500)
    with pytest.raises(SparsemendError, match=r"at least 520"):
        allocate_layers(layers, {}, dear, "uniform")


def test_a_budget_of_other_layers():
    layers = make_layers([(5, 4), (5, 4)])
    with pytest.raises(SparsemendError, match="the budget is of layers of other sizes"):
        allocate_layers(layers[:1], {}, quota(layers, 0.5), "uniform")


@settings(max_examples=15)
@given(networks.filter(lambda layers: len(layers) > 2), st.integers(0, 100))
def test_forced_layers_are_paid_for_by_the_others(layers, seed):
    limit = quota(layers, 0.5)
    assume(sum(limit.prices) <= limit.limit)  # every layer keeps a weight
    weights = random_weights(layers, seed)
    base, source = (allocate_layers(layers, weights, limit, rule) for rule in ("erk", "lamp"))
    try:
        found = force_layers(base, source, {layers[0].name}, "x", limit)
    except SparsemendError:
        return
    assert found[layers[0].name] == source[layers[0].name]
    assert cost(limit, found) <= limit.limit


def test_a_model_that_is_off_is_corrected():
    layers = make_layers([(40, 10), (40, 10)])
    model = quota(layers, 0.4, prices=(1, 1))

    def measure(counts):
        return 1.25 * model.cost(counts)

    limit = quota(layers, 0.4, prices=(1, 1), measure=measure)

    def uniform(keep):
        return round_to_budget([1.0, 1.0], limit.sizes, keep)

    corrected = limit.corrected(limit.fill(uniform))
    assert measure(corrected.fill(uniform)) == pytest.approx(float(limit.limit), rel=0.01)
    assert model.corrected((1, 1)) is model
