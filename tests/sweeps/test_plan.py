import itertools

import pytest
import torch
from tests.sweeps.samples import SIZES, make_cell, make_record, make_settings
from torch import nn

from sparsemend import SparsemendError
from sparsemend.sweeps import DrawnInputs, GivenInputs, Network, estimate, make_grid
from sparsemend.sweeps.plan import Estimate, Forecast, plan_tasks, sharing, telling_first
from sparsemend.sweeps.records import Task


@pytest.fixture
def network(digits, images):
    return Network("digits", digits.model, DrawnInputs(images, **SIZES))


def test_tasks_say_all_that_a_result_depends_on(network):
    grid = make_grid([0.9, 0.8], ["erk"], None, ["reconstruct", "mean"], [0, 1])
    tasks = plan_tasks([network], grid, "sequential")
    assert len(tasks) == len(set(tasks)) == 8
    assert [task.cell.mask for task in tasks] == ["gradual"] * 2 + ["magnitude"] * 2 + [
        "gradual"
    ] * 2 + ["magnitude"] * 2
    first, last = tasks[0].settings, tasks[-1].settings
    assert (first.calibration_size, first.heldout_size, first.test_size) == (64, 64, 100)
    assert (first.batch_size, first.scope) == (32, "sequential")
    assert (first.weights, first.test) == (last.weights, last.test)
    assert first.inputs != last.inputs  # another seed
    assert tasks == plan_tasks([network], grid, "sequential")


@pytest.mark.parametrize(
    ("size", "value"),
    [("calibration_size", 96), ("heldout_size", 32), ("batch_size", 64), ("limit", 99)],
)
def test_sizes_make_other_tasks(digits, images, network, size, value):
    grid = make_grid(0.9, "erk", None, "mean")
    other = Network("digits", digits.model, DrawnInputs(images, **(SIZES | {size: value})))
    assert plan_tasks([other], grid, "sequential") != plan_tasks([network], grid, "sequential")


def test_only_searches_have_a_budget(network):
    def budgets(**options):
        grid = make_grid(0.9, ["erk", "auto"], None, "mean")
        tasks = plan_tasks([network], grid, "sequential", **options)
        return {task.cell.rule: task.settings.budget for task in tasks}

    assert budgets() == {"erk": "", "auto": "40"}
    assert budgets(budget=12) == budgets(budget="12") == {"erk": "", "auto": "12"}
    assert budgets(budget="2min") == {"erk": "", "auto": "120s"}
    with pytest.raises(SparsemendError, match="the search budget is not understood: got 'soon'"):
        budgets(budget="soon")
    with pytest.raises(SparsemendError, match="none of the rules searches"):
        plan_tasks([network], make_grid(0.9, "erk", None, "mean"), "sequential", 12)


def test_only_repairs_that_train_have_a_length(network):
    def lengths(**options):
        grid = make_grid(0.9, "erk", None, ["mean", "mean+distill", "best"])
        tasks = plan_tasks([network], grid, "sequential", **options)
        return {task.cell.repair: task.settings.distill for task in tasks}

    assert lengths() == {"mean": "", "mean+distill": "400", "best": ""}
    assert lengths(distill="2min") == {"mean": "", "mean+distill": "120s", "best": "120s"}
    with pytest.raises(SparsemendError, match="length of the distillation is not understood"):
        lengths(distill="soon")
    with pytest.raises(SparsemendError, match="does not train"):
        plan_tasks([network], make_grid(0.9, "erk", None, "mean"), "sequential", distill=9)


def test_new_biases_are_a_setting_of_networks_that_could_get_some(network):
    grid = make_grid(0.9, "erk", None, "mean")
    given = GivenInputs([torch.randn(8, 6) for _ in range(4)])
    bare = Network("bare", nn.Sequential(nn.Linear(6, 5, bias=False), nn.ReLU()), given)
    for asked in (False, True):
        tasks = plan_tasks([network, bare], grid, "sequential", new_biases=asked)
        # True where it makes no difference: as in stores that did not keep it.
        assert [task.settings.new_biases for task in tasks] == [True, asked]
        assert [task.recipe.new_biases for task in tasks] == [True, asked]


def test_masks_that_come_to_the_same_are_one_cell(network):
    grid = make_grid(0.9, "erk", ["magnitude", "magnitude"], "mean")
    assert len(plan_tasks([network], grid, "sequential")) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsities": 1.0}, "sparsity is out of range: got 1.0"),
        ({"sparsities": float("nan")}, "sparsity is out of range: got nan"),
        ({"rules": ["erk", "snip"]}, "unknown allocation rule: got 'snip'"),
        ({"rules": "erk[projection=snip]"}, "unknown allocation rule: got 'snip'"),
        ({"rules": "erk[nowhere*=lamp]"}, "no layer of the network is meant by this pattern"),
        ({"masks": "random"}, "unknown mask: got 'random'"),
        ({"masks": "gradual"}, "mask 'gradual' is chosen jointly"),
        ({"repairs": ["mean", "magic"]}, "unknown repair: got 'magic'"),
        ({"scope": "both"}, "unknown repair scope: got 'both'"),
        ({"scope": "one-shot", "repairs": "reconstruct"}, "works layer by layer"),
    ],
)
def test_bad_input_is_refused_before_any_work(network, values, message):
    values = {"sparsities": 0.9, "rules": "erk", "repairs": "mean"} | values
    scope = values.pop("scope", "sequential")
    with pytest.raises(SparsemendError) as caught:
        plan_tasks([network], make_grid(**values), scope)
    assert message in str(caught.value)


def test_repairs_that_a_network_cannot_have():
    network = Network("n", nn.Sequential(nn.Linear(2, 2)), GivenInputs([torch.ones(4, 2)] * 2))
    with pytest.raises(SparsemendError, match="BatchNorm"):
        plan_tasks([network], make_grid(0.5, "erk", None, "batchnorm"), "sequential")


def test_time_is_estimated_from_like_cells():
    def task(settings=None, **cell):
        return Task(make_cell(**cell), settings or make_settings())

    times = {0.7: 1.0, 0.8: 9.0, 0.9: 2.0}
    records = [make_record(make_cell(sparsity=s), seconds=time) for s, time in times.items()]
    records.append(make_record(make_cell(rule="rr"), seconds=5.0))
    assert estimate([task(sparsity=0.5)], records) == Estimate(2.0, 0)  # the median
    assert estimate([task(seed=1), task(rule="rr")], records) == Estimate(7.0, 0)
    # Another rule: the median of all rules with this repair.
    assert estimate([task(rule="lamp")], records) == Estimate(3.5, 0)
    for other in (
        task(repair="affine"),
        task(network="m"),
        task(mask="activation"),
        task(make_settings(calibration_size=1024)),
        task(make_settings(test_size=10_000)),
    ):
        assert estimate([other, task()], records) == Estimate(2.0, 1)
    assert estimate([], records) == Estimate(0.0, 0)


@pytest.mark.parametrize(
    ("estimated", "text"),
    [
        (Estimate(0.0, 0), "about 0.0 seconds on one worker"),
        (Estimate(150.0, 0), "about 2.5 minutes on one worker"),
        (Estimate(9000.0, 0), "about 2.5 hours on one worker"),
        (Estimate(0.0, 3), "3 cells unlike any in the store, so their time is not known"),
        (
            Estimate(60.0, 1),
            "about 60.0 seconds on one worker, and 1 cell unlike any in the store",
        ),
    ],
)
def test_estimates_in_words(estimated, text):
    assert str(estimated).startswith(text)


def test_one_of_every_kind_comes_first_and_a_second_of_the_first():
    grid = [
        Task(make_cell(network=network, seed=seed, rule=rule, repair=repair), make_settings())
        for network in ("a", "b")
        for seed in (0, 1)
        for rule in ("erk", "lamp", "uniform")
        for repair in ("mean", "variance", "affine")
    ]
    ordered = telling_first(grid)
    assert sorted(map(grid.index, ordered)) == list(range(len(grid)))
    assert list(dict.fromkeys(map(sharing, ordered))) == list(dict.fromkeys(map(sharing, grid)))
    assert [len(list(group)) for _, group in itertools.groupby(ordered, key=sharing)] == [9] * 4
    repairs = [task.cell.repair for task in ordered]
    assert repairs[:4] == repairs[18:22] == ["mean", "variance", "affine", "mean"]
    assert ordered[9:18] == [task for task in grid if sharing(task) == ("a", 1)][:9]


def test_a_forecast_learns_from_what_is_done():
    cells = [make_cell(seed=seed, repair=name) for seed in (0, 1) for name in ("mean", "affine")]
    tasks = [Task(cell, make_settings()) for cell in cells]
    forecast = Forecast(tasks, [])
    assert forecast.estimate() == Estimate(0.0, 4)
    forecast.finish(tasks[0], None)
    assert forecast.estimate() == Estimate(0.0, 3)
    forecast.finish(tasks[1], 5.0)
    assert forecast.estimate() == Estimate(5.0, 1)
    forecast.finish(tasks[2], 1.0)
    assert forecast.estimate() == forecast.estimate(tasks[0].cell.network) == Estimate(5.0, 0)
    assert forecast.count(tasks[0].cell.network) == 1
    assert forecast.estimate("other") == Estimate(0.0, 0)
    forecast.finish(tasks[3], None)
    assert forecast.estimate() == Estimate(0.0, 0)
