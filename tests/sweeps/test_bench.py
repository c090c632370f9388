import dataclasses
import math
import warnings

import pytest
import torch
from tests.sweeps.samples import SIZES, make_cell
from torch import nn

import sparsemend as sm
from sparsemend.diagnosis import recipes
from sparsemend.evaluation import Agreement
from sparsemend.session import session
from sparsemend.sweeps import DrawnInputs, Failure, GivenInputs, Network, make_grid
from sparsemend.sweeps import bench as module
from sparsemend.sweeps.bench import Bench
from sparsemend.sweeps.plan import plan_tasks
from sparsemend.verbs import running


def tasks_of(networks, *values, scope="sequential", budget=None):
    return plan_tasks(networks, make_grid(*values), scope, budget)


@pytest.fixture
def network(digits, images):
    return Network("digits", digits.model, DrawnInputs(images, **SIZES))


@pytest.mark.parametrize(
    ("rule", "mask", "repair", "scope"),
    [
        ("rr", "magnitude", "batchnorm", "sequential"),
        ("erk", "activation", "affine", "one-shot"),
        ("rr", "activation", "variance", "sequential"),
        ("global", None, "reconstruct", "sequential"),
        ("erk[projection=lamp]", "magnitude", "mean", "sequential"),
        ("auto", "magnitude", "batchnorm", "sequential"),
    ],
)
def test_a_cell_is_what_compress_gives(digits, images, network, rule, mask, repair, scope):
    masks = None if mask is None else [mask]
    budget = 9 if rule == "auto" else None
    (task,) = tasks_of([network], 0.9, rule, masks, repair, 3, scope=scope, budget=budget)
    record = Bench([network]).compute(task)
    seen, unseen = network.inputs.draw(3)
    if rule == "erk[projection=lamp]":
        # erk alone keeps projections dense.
        assert record.densities["layer2.0.downsample.0"] < 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sm.SparsemendWarning)  # so few inputs
        result = sm.compress(
            digits.model,
            seen,
            0.9,
            rule,
            mask,
            repair,
            scope=scope,
            budget=budget,
            heldout=unseen,
        )
    test = list(images.test_batches(limit=SIZES["limit"]))
    pruned = sm.prune(digits.model, result.allocation)
    assert record.achieved_sparsity == result.sparsity
    assert record.top1_dense == sm.evaluate(digits.model, test).top1
    assert record.top1_repaired == sm.evaluate(result.model, test).top1
    if result.mask == "magnitude":
        assert record.top1_pruned == sm.evaluate(pruned, test).top1
    assert (record.kl, record.agreement) == (result.agreement.kl, result.agreement.top1)
    assert record.chance == pytest.approx(0.1)
    assert record.densities == dict(result.allocation.densities)
    assert record.kept_multiplications == result.kept_multiplications
    assert (record.cell.mask, record.cell.repair) == (result.mask, repair)
    assert record.settings == task.settings
    assert record.seconds > 0
    assert record.versions["sparsemend"] == sm.__version__
    assert record.versions["torch"] == torch.__version__
    assert record.versions.keys() == {"sparsemend", "torch", "python"}


def test_shared_work_is_done_once(network, monkeypatch):
    places = {
        "gather_moments": session,
        "diagnose": recipes,
        "find_allocation": running,
        "evaluate": module,
    }
    calls = dict.fromkeys(places, 0)

    def counting(name):
        original = getattr(places[name], name)

        def count(*args, **kwargs):
            calls[name] += 1
            return original(*args, **kwargs)

        return count

    for name, place in places.items():
        monkeypatch.setattr(place, name, counting(name))
    bench = Bench([network])
    rules, repairs, seeds = ["rr", "erk"], ["none", "mean"], [0, 1]
    tasks = tasks_of([network], [0.8, 0.9], rules, None, repairs, seeds)
    records = [bench.compute(task) for task in tasks]
    assert len(records) == 16
    assert calls["gather_moments"] == 2  # seeds
    assert calls["diagnose"] == 2 * 2  # seeds and repairs
    assert calls["find_allocation"] == 0
    masks = {tuple(record.densities.values()) for record in records}
    assert len(masks) < 12  # erk has the same masks for all repairs and seeds
    assert calls["evaluate"] == 1 + len(masks) + len(records)  # dense, pruned, repaired


def test_a_diagnosis_that_is_given_replaces_the_cells_own(digits, network):
    seen, _ = network.inputs.draw(1)
    diagnosis = sm.diagnose(digits.model, sm.calibrate(digits.model, seen), "affine")
    given = dataclasses.replace(network, diagnosis=diagnosis)
    values = (0.9, ["rr", "erk[fc=rr]", "erk", "auto"], None, "mean")
    tasks = tasks_of([given], *values, budget=5)
    for task, own in zip(tasks, tasks_of([network], *values, budget=5), strict=True):
        record = Bench([given]).compute(task)
        if task.cell.rule in ("erk", "auto"):
            assert task == own  # these read none, or one of their own
            continue
        assert task.settings.diagnosis
        assert dataclasses.replace(task.settings, diagnosis="") == own.settings
        allocation = sm.allocate(digits.model, 0.9, task.cell.rule, diagnosis=diagnosis)
        assert record.densities == dict(allocation.densities)


def test_nothing_held_out(digits, images):
    inputs = DrawnInputs(images, **(SIZES | {"heldout_size": 0}))
    network = Network("digits", digits.model, inputs)
    (task,) = tasks_of([network], 0.9, "erk", None, "mean")
    record = Bench([network]).compute(task)
    assert record.settings.heldout_size == 0
    result = sm.compress(digits.model, inputs.draw(0)[0], 0.9, "erk", repair="mean")
    assert (record.kl, record.agreement) == (result.agreement.kl, result.agreement.top1)
    for rule, repair in (("auto", "mean"), ("erk", "best")):
        with pytest.raises(sm.SparsemendError, match="choose by held-out inputs"):
            tasks_of([network], 0.9, rule, None, repair)


def test_the_repair_that_was_run(network):
    tasks = tasks_of([network], 0.9, "erk", None, ["best", "batchnorm"])
    best, plain = (Bench([network]).compute(task) for task in tasks)
    assert best.kept_repair.startswith("reconstruct")
    assert plain.kept_repair == "batchnorm"


def test_searches_share_their_diagnosis(network, monkeypatch):
    found = []
    diagnose = recipes.diagnose
    monkeypatch.setattr(
        recipes,
        "diagnose",
        lambda *a, **k: found.append(diagnose(*a, **k)) or found[-1],
    )
    bench = Bench([network])
    for task in tasks_of([network], [0.8, 0.9], "auto", None, "none"):
        assert bench.compute(task).cell == task.cell
    assert len(found) == 1


def test_what_is_shared_changes_nothing(network):
    tasks = tasks_of([network], [0.8, 0.9], ["rr", "erk"], None, ["variance", "none"], [0, 1])
    bench = Bench([network])
    together = {task: bench.compute(task) for task in tasks}
    for task in tasks[::-5]:
        alone = Bench([network]).compute(task)
        shared = dataclasses.replace(together[task], seconds=alone.seconds)
        assert shared == alone


def test_a_cell_that_cannot_be_is_a_failure(network):
    good, bad = tasks_of([network], [0.9, 0.9999], "erk", None, "mean")
    bench = Bench([network])
    failure = bench.compute(bad)
    assert isinstance(failure, Failure)
    assert (failure.cell, failure.settings) == (bad.cell, bad.settings)
    assert "the largest feasible sparsity is" in failure.error
    assert bench.compute(good).cell == good.cell


def test_other_errors_fail_their_cell_alone(network, monkeypatch):
    def fail(*_, **__):
        raise torch.linalg.LinAlgError("did not converge")

    (task,) = tasks_of([network], 0.9, "erk", None, "mean")
    monkeypatch.setattr(module, "run_recipe", fail)
    assert Bench([network]).compute(task).error.endswith("LinAlgError: did not converge")


def test_without_labels_there_is_no_accuracy():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4))
    network = Network("n", model, GivenInputs(list(torch.randn(5, 8, 6))))
    (task,) = tasks_of([network], 0.5, "global", None, "mean")
    record = Bench([network]).compute(task)
    assert (record.top1_dense, record.top1_pruned, record.top1_repaired) == (None, None, None)
    assert record.chance == 1 / 4
    assert record.kl > 0
    assert record.settings.test_size == 0
    assert (record.settings.calibration_size, record.settings.heldout_size) == (32, 8)


def test_inputs_that_move_are_noticed():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 4))
    network = Network("n", model, GivenInputs(lambda _: list(torch.randn(5, 8, 6))))
    (task,) = tasks_of([network], 0.5, "global", None, "mean")
    failure = Bench([network]).compute(task)
    assert "the calibration inputs of seed 0 are not those drawn before" in failure.error


def test_outputs_that_are_not_finite_are_no_result(network, monkeypatch):
    (task,) = tasks_of([network], 0.9, "erk", None, "mean")

    def overflowing(*args, **kwargs):
        return dataclasses.replace(
            run(*args, **kwargs), agreement=Agreement(math.nan, "kl", math.nan, 0, 1)
        )

    run = module.run_recipe
    monkeypatch.setattr(module, "run_recipe", overflowing)
    assert "not finite" in Bench([network]).compute(task).error


def test_networks_may_differ_in_all():
    torch.manual_seed(0)
    networks = []
    for name, width, classes in (("a", 3, 2), ("b", 5, 7)):
        labelled = [(torch.randn(9, width), torch.zeros(9, dtype=torch.int64))]
        inputs = GivenInputs(list(torch.randn(3, 4, width)), labelled=labelled)
        networks.append(Network(name, nn.Sequential(nn.Linear(width, classes)), inputs))
    bench = Bench(networks)
    records = [bench.compute(task) for task in tasks_of(networks, 0.5, "global", None, "mean")]
    assert [record.cell.network for record in records] == ["a", "b"]
    assert [record.chance for record in records] == [1 / 2, 1 / 7]
    assert all(record.top1_dense is not None for record in records)


def test_a_test_set_too_large_to_hold_is_read_again(network, monkeypatch):
    (task,) = tasks_of([network], 0.9, "erk", None, "mean")
    held = Bench([network]).compute(task)
    monkeypatch.setattr(module, "_HELD_BYTES", 1000)
    streamed = Bench([network]).compute(task)
    assert dataclasses.replace(streamed, seconds=held.seconds) == held


def test_unknown_cells_of_a_network_are_errors_of_the_program(network):
    (task,) = tasks_of([network], 0.9, "erk", None, "mean")
    other = dataclasses.replace(task, cell=make_cell(network="none"))
    assert "KeyError" in Bench([network]).compute(other).error
    assert not math.isnan(Bench([network]).compute(task).kl)
