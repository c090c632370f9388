"""Trials of the search: the repair that was asked for, judged on the held-out inputs."""

import copy
import math
import warnings

import pytest
import torch
from tests.repairs.networks import CHANNELS, conv_bn, images, same_state
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendWarning
from sparsemend.layers import discover
from sparsemend.masks import get_mask_rule
from sparsemend.recipe import Recipe
from sparsemend.repairs import Formula
from sparsemend.search.objective import Objective, start_support
from sparsemend.session import Session


def make(repair="variance", mask="magnitude", batches=4, size=24, model=None, **options):
    model = conv_bn() if model is None else model
    inputs = [images(size, seed) for seed in range(batches)]
    heldout = [images(30, 100), images(30, 101)]
    recipe = Recipe(0.6, "erk", mask, repair, **options)
    objective = Objective(Session(model, inputs, heldout), recipe)
    return model, inputs, heldout, objective


@pytest.mark.parametrize(
    ("repair", "mask", "scope"),
    [
        ("none", "magnitude", "sequential"),
        ("variance", "magnitude", "sequential"),
        ("variance", "activation", "one-shot"),
        ("affine+batchnorm", "magnitude", "sequential"),
        ("batchnorm", "activation", "sequential"),
        ("reconstruct", "magnitude", "sequential"),
        ("reconstruct+batchnorm", "gradual", "sequential"),
        ("reconstruct", "gradual", "sequential"),
    ],
)
def test_the_exact_value_is_that_of_the_whole_job(repair, mask, scope):
    model, inputs, heldout, objective = make(repair, mask, scope=scope)
    before = copy.deepcopy(model)
    counts = sm.allocate(model, 0.6, "erk", layers=discover(model, inputs[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsemendWarning)
        whole = sm.compress(
            model, inputs, 0.6, "erk", mask, repair, scope=scope, heldout=heldout, progress=False
        )
    assert objective.exact(counts) == whole.agreement.kl > 0
    assert objective.exact(counts) == whole.agreement.kl  # again
    assert math.isfinite(objective.proxy(counts))
    assert objective.proxy(counts) == objective.proxy(counts)
    assert same_state(model, before)


def test_trials_of_repair_best_are_reconstructions():
    model, inputs, _, best = make("best", "gradual")
    counts = sm.allocate(model, 0.6, "erk", layers=discover(model, inputs[0]))
    assert best.exact(counts) == make("reconstruct", "gradual")[3].exact(counts)


@pytest.mark.filterwarnings("ignore:reconstruction leans")
@pytest.mark.parametrize(
    ("repair", "mask", "tried", "formula"),
    [
        ("distill", "magnitude", "variance", "distill"),
        ("best", "gradual", "reconstruct", "reconstruct+distill"),
    ],
)
def test_where_a_repair_trains_the_final_trials_do(repair, mask, tried, formula, monkeypatch):
    model, inputs, heldout, objective = make(repair, mask, batches=2, distill=7)
    counts = sm.allocate(model, 0.6, "erk", layers=discover(model, inputs[0]))
    ran = []
    run = Formula.run
    monkeypatch.setattr(Formula, "run", lambda *a: (ran.append((str(a[0]), a[3])), run(*a))[1])
    objective.exact(counts)
    by_direction, final = objective.direction(counts), objective.final(counts)
    assert [(name, terms.distill and terms.distill.steps) for name, terms in ran] == [
        (tried, None),  # once for both judges
        (formula, 7),
    ]
    assert objective.final_cost == 1.07
    options = {"heldout": heldout, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SparsemendWarning)
        without, whole = (
            sm.compress(model, inputs, 0.6, "erk", mask, name, **options, **more)
            for name, more in ((tried, {}), (formula, {"distill": 7}))
        )
    assert final == whole.agreement.kl
    expected = sm.agreement(without.model, model, heldout, judge="direction").loss
    assert by_direction == expected


def test_the_length_of_a_training_that_is_a_time_is_guessed():
    assert make("variance+distill", distill="2min")[3].final_cost == 5
    assert make("variance")[3].final_cost == 0


def test_how_long_a_training_takes_is_known_or_measured():
    assert make("variance")[3].training_seconds() == 0
    assert make("variance+distill", distill="2min")[3].training_seconds() == 120
    assert 0 < make("variance+distill", distill=10)[3].training_seconds() < 60


def test_nothing_pruned_is_no_distance():
    model, inputs, _, objective = make("none")
    dense = sm.allocate(model, 0, layers=discover(model, inputs[0]))
    assert objective.exact(dense) == objective.proxy(dense) == 0


@pytest.mark.parametrize(
    ("repair", "batches", "cost"),
    [
        ("variance", 4, 1 / 4),
        ("batchnorm", 8, 1 / 4),
        ("reconstruct", 4, 1 / 8),
        ("best", 4, 1 / 8),
        ("variance", 1, 1 / 4),
        ("reconstruct", 1, 1 / 8),
        ("variance", 2, 1 / 2),  # whole batches
    ],
)
def test_a_cheap_trial_costs_its_share(repair, batches, cost):
    assert make(repair, batches=batches)[3].proxy_cost == cost


def test_a_single_input_serves():
    objective = make(batches=1, size=1)[3]
    assert objective.proxy_cost == 1


@pytest.mark.parametrize("batches", [1, 4])
def test_a_cheap_trial_is_judged_on_the_calibration_inputs_that_it_does_not_repair_with(batches):
    model, inputs, _, objective = make("none", batches=batches)
    counts = sm.allocate(model, 0.6, layers=discover(model, inputs[0]))
    whole = torch.cat(inputs)
    rest = whole[len(whole) // 4 :]
    expected = sm.agreement(sm.prune(model, counts), model, rest).kl
    assert objective.proxy(counts) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("batches", [1, 4])
def test_a_cheap_trial_sees_a_part_of_the_inputs(batches, monkeypatch):
    seen = []

    def repairing(formula, session, *_):  # noqa: ARG001
        seen.append(torch.cat(session.seen))

    monkeypatch.setattr(Formula, "run", repairing)
    model, inputs, _, objective = make(batches=batches)
    counts = sm.allocate(model, 0.6, layers=discover(model, inputs[0]))
    objective.exact(counts)
    objective.proxy(counts)
    whole = torch.cat(inputs)
    assert torch.equal(seen[0], whole)
    assert torch.equal(seen[1], whole[: len(whole) // 4])


def test_outputs_that_are_no_numbers_are_infinitely_far(monkeypatch):
    def breaking(formula, session, model, _):  # noqa: ARG001
        nn.init.constant_(list(model.parameters())[-1], math.nan)

    monkeypatch.setattr(Formula, "run", breaking)
    model, inputs, _, objective = make()
    counts = sm.allocate(model, 0.6, layers=discover(model, inputs[0]))
    assert objective.exact(counts) == objective.proxy(counts) == math.inf


def test_trials_do_not_warn(recwarn):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(CHANNELS * 25, 5))
    # Far fewer inputs than columns: a reconstruction leans on its ridge.
    _, inputs, _, objective = make("reconstruct", "gradual", batches=1, size=8, model=model)
    counts = sm.allocate(model, 0.2, layers=discover(model, inputs[0]))
    objective.exact(counts)
    assert not recwarn.list
    with pytest.warns(SparsemendWarning):
        sm.compress(model, inputs, 0.2, "global", repair="reconstruct")


def test_masks_are_applied_unless_the_repair_chooses_them():
    model = conv_bn()
    session = Session(model, [images()])
    counts = sm.allocate(model, 0.6, layers=session.layers)
    free, fixed = copy.deepcopy(model), copy.deepcopy(model)
    support = start_support(session, free, counts, get_mask_rule("gradual"))
    assert support.masks is None
    assert support.counts is counts
    assert same_state(free, model)
    support = start_support(session, fixed, counts, get_mask_rule("magnitude"))
    assert same_state(fixed, sm.prune(model, counts))
    assert {name: int(mask.sum()) for name, mask in support.masks.items()} == dict(counts)


@pytest.mark.parametrize(
    ("repair", "mask"),
    [
        ("none", "magnitude"),
        ("variance", "magnitude"),
        ("batchnorm", "activation"),
        ("variance+batchnorm-ema", "magnitude"),
    ],
)
def test_slopes_are_of_the_network_that_had_the_last_repair(repair, mask, monkeypatch):
    repaired = []
    run = Formula.run
    monkeypatch.setattr(Formula, "run", lambda *a: (repaired.append(a[2]), run(*a)))
    model, inputs, _, objective = make(repair, mask)
    before = copy.deepcopy(model)
    layers = discover(model, inputs[0])
    counts = sm.allocate(model, 0.6, "erk", layers=layers)
    objective.exact(counts)
    found = objective.slopes(counts)
    assert len(repaired) == 1
    assert found.shape == (len(layers),)
    assert (found != 0).all()
    other = sm.allocate(model, 0.6, "uniform", layers=layers)
    assert (objective.slopes(other) != found).any()
    assert len(repaired) == 2
    assert (objective.slopes(counts) == found).all()
    assert same_state(model, before)


def test_slopes_say_what_weights_at_the_margin_bring():
    """Nearly dense, so that the first order is all there is."""
    model, inputs, _, objective = make("none", batches=1)
    layers = discover(model, inputs[0])
    counts = {layer.name: layer.size for layer in layers}
    layer = layers[0]
    counts[layer.name] = layer.size // 2
    slope = objective.slopes(counts)[0]
    ends = []
    for count in (layer.size // 3, 3 * layer.size // 4):
        pruned = sm.prune(model, {**counts, layer.name: count})
        ends.append(sm.agreement(pruned, model, inputs).kl)
    assert slope < 0
    assert slope * math.log(9 / 4) == pytest.approx(ends[1] - ends[0], rel=0.5)


@pytest.mark.parametrize(
    ("repair", "mask"),
    [("reconstruct", "gradual"), ("reconstruct", "magnitude"), ("best", "gradual")],
)
def test_refitted_weights_have_no_slopes(repair, mask):
    model, inputs, _, objective = make(repair, mask)
    counts = sm.allocate(model, 0.6, layers=discover(model, inputs[0]))
    assert objective.slopes(counts) is None
