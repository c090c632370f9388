"""What is worth doing in a time, and in which order."""

from __future__ import annotations

import pytest
from tests.repairs.networks import conv_bn, images

from sparsemend.recipe import AUTO, Recipe
from sparsemend.repairs import EFFORTS
from sparsemend.session import Session
from sparsemend.verbs.costs import Costs
from sparsemend.verbs.steps import Step, Training, estimated_training, fitting, steps

SPARSITY = 0.6
# A forward pass takes a second an input, and solving for the layers next to nothing.
SLOW_INPUTS = Costs(forward=1.0, moments=1.0, product=0.0, inversion=0.0)


@pytest.fixture(scope="module")
def session():
    return Session(conv_bn(), list(images(64).split(16)), list(images(16, seed=1).split(16)))


def quick(rule, seconds):
    return Step("reconstruct", "quick", 64, seconds, rule)


def summary(wanted):
    return [(f"{step.effort} {step.repair}", step.inputs, step.rule) for step in wanted]


def test_more_time_is_more_work(session):
    recipe = Recipe(SPARSITY)
    full = SLOW_INPUTS.reconstruction(list(session.layers), SPARSITY, 64, EFFORTS["full"])
    found = [steps(session, SLOW_INPUTS, recipe, seconds * full) for seconds in (1000, 20, 5, 0.6)]
    searching, limited, tried, hurried = found
    assert [step.rule for step in searching] == [AUTO]
    assert searching[0].budget is None
    assert [step.rule for step in limited] == [AUTO]
    assert limited[0].budget.endswith("s")
    rules = ["global", "erk", "lamp"]
    assert summary(tried) == [
        *[("full reconstruct", 64, rule) for rule in rules],
        ("full best", 64, ""),
    ]
    assert summary(hurried) == [
        *[("full reconstruct", 32, rule) for rule in rules],
        ("full reconstruct", 64, ""),
        ("full best", 64, ""),
    ]
    assert hurried[0].seconds <= 0.6 * full
    last = steps(session, SLOW_INPUTS, recipe, 0.0)
    assert {step.repair for step in last} == {"variance"}


def test_where_choosing_takes_long_it_is_quick(session):
    slow = Costs(forward=1e-9, moments=1e-9, product=1.0, inversion=0.0)
    layers = list(session.layers)
    full, quick = (slow.reconstruction(layers, SPARSITY, 64, EFFORTS[e]) for e in ("full", "quick"))
    assert quick < full
    assert summary(steps(session, slow, Recipe(SPARSITY), 1.01 * quick)) == [
        *[("quick reconstruct", 64, rule) for rule in ("global", "erk", "lamp")],
        ("full reconstruct", 64, ""),
        ("full best", 64, ""),
    ]


def test_where_hardly_anything_is_left_the_rule_that_empties_layers_comes_last(session):
    full = SLOW_INPUTS.reconstruction(list(session.layers), 0.95, 64, EFFORTS["full"])
    found = steps(session, SLOW_INPUTS, Recipe(0.95), 5 * full)
    assert [step.rule for step in found] == ["erk", "lamp", "global", ""]


def test_how_many_steps_fit():
    wanted = [quick("erk", seconds=4.0), quick("lamp", seconds=3.0), quick("global", seconds=9.0)]
    assert [fitting(wanted, seconds) for seconds in (0, 6.9, 7, 15, 16)] == [1, 1, 2, 2, 3]


def test_steps_of_a_distillation():
    training = Training(each=1.0)
    assert [training.steps(seconds) for seconds in (-1, 29, 30, 99, 1e6)] == [0, 0, 30, 90, 400]
    assert (Training().kept, Training().steps(1e9)) == (0, 0)


@pytest.mark.parametrize(("spare", "kept"), [(1e6, 200 * 5.5 * 64), (100.0, 0.0)])
def test_time_is_kept_for_a_distillation_only_where_a_repair_leaves_it(session, spare, kept):
    training = estimated_training(session, SLOW_INPUTS).within(spare)
    assert training.kept == pytest.approx(kept)
    assert training.steps(1e9) == 400


def test_training_comes_before_a_longer_search(session):
    """One repair takes ``full``, a step a tenth of that; a search of 10 with the trainings 76."""
    full = SLOW_INPUTS.reconstruction(list(session.layers), SPARSITY, 64, EFFORTS["full"])
    full += SLOW_INPUTS.judging(16)

    def planned(repairs, each=0.1):
        training = Training(each=each * full)
        recipe = Recipe(SPARSITY)
        return steps(session, SLOW_INPUTS, recipe, repairs * full, training=training)

    (whole,), (short,) = planned(46 + 3 * 40.01), planned(10 + 6 + 3 * 25.01)
    assert (whole.rule, whole.repair, whole.budget, whole.distill) == (AUTO, "best", None, 400)
    assert (short.rule, short.repair, short.distill) == (AUTO, "best", 250)
    # What is left for the endings and the last training.
    assert float(short.budget.removesuffix("s")) == pytest.approx((10 + 50.02) * full, rel=1e-3)
    ladder = planned(70)  # too little for three trainings, enough for one behind three rules
    assert [step.rule for step in ladder] == ["global", "erk", "lamp", ""]
    assert [step.distill for step in ladder] == [None] * 4
    (longer,) = planned(70, each=1.0)  # too slow for any
    assert (longer.rule, longer.distill) == (AUTO, None)
