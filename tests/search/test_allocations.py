"""Rule ``auto`` on small networks of every kind, through ``compress``."""

import copy
import dataclasses
import itertools
import json
import pkgutil

import pytest
import torch
from tests.repairs.networks import conv_bn, images, perceptron, randomise, same_state
from tests.search.fakes import outline
from torch import nn

import sparsemend as sm
from sparsemend import SparsemendError
from sparsemend.layers import discover
from sparsemend.recipe import Recipe
from sparsemend.search import allocations
from sparsemend.search.allocations import plain_allocations
from sparsemend.search.branches import branching_cost
from sparsemend.session import Session

pytestmark = pytest.mark.filterwarnings("ignore:reconstruction leans on its ridge")
RULES = {
    name
    for name, rule in sm.allocation.RULES.items()
    if rule.searched and rule.needs != "sensitivities"
}


def conv_only():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(4, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 5, 1),
        nn.Flatten(),
    )


def linear_with_norm():
    torch.manual_seed(0)
    layers = [nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(8, 5)).eval()


class Shortcut(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(4, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.projection = nn.Conv2d(6, 8, 1, stride=2)
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.inner(x) + self.projection(x))
        return self.head(x.mean(dim=(2, 3)))


NETWORKS = {
    "conv-bn-linear": (conv_bn, images),
    "conv-linear": (lambda: conv_bn(norms=("none",)), images),
    "conv": (conv_only, images),
    "linear": (perceptron, lambda n, seed: images(n, seed)[:, 0].flatten(1)[:, :6]),
    "linear-bn": (linear_with_norm, lambda n, seed: images(n, seed)[:, 0].flatten(1)[:, :6]),
    "shortcut": (lambda: randomise(Shortcut(), 0), images),
}


def data(name, batches=5, size=24):
    make, inputs = NETWORKS[name]
    return make(), [inputs(size, seed) for seed in range(batches)]


def check(result, model):
    search, allocation = result.search, result.allocation
    assert result.rule == allocation.rule == "auto"
    assert allocation is search.allocation
    assert allocation.kept == sm.allocation.kept_total(0.6, allocation.total)
    assert result.heldout
    for name, mask in result.masks.items():
        assert 1 <= int(mask.sum()) == allocation[name] <= mask.numel()
        assert not result.model.get_submodule(name).weight[~mask].any()
    assert set(search.plain) >= RULES - {"uniform+"}
    assert search.kl == min(trial.kl for trial in search.trials) <= min(search.plain_kl.values())
    assert list(search.reference) == list(allocation) == list(discover(model).names)
    json.dumps(search.to_dict(), allow_nan=False)


CHOICES = [
    *((name, "variance", "magnitude") for name in NETWORKS),
    ("shortcut", "affine", "activation"),
    ("linear-bn", "affine", "activation"),
    ("conv", "reconstruct", "gradual"),
    ("shortcut", "reconstruct", "gradual"),
    ("linear", "best", "gradual"),
    ("linear-bn", "reconstruct+batchnorm", "magnitude"),
    ("conv-bn-linear", "best", "magnitude"),
]


@pytest.fixture
def short_descent(monkeypatch):
    """The way downhill ends with the first step, whether it helps or not."""
    monkeypatch.setattr("sparsemend.search.auto._RADIUS", 0.09)
    monkeypatch.setattr("sparsemend.search.auto._GROW", 0.5)


def downhill(result):
    return [trial for trial in result.search.trials if "downhill" in trial.name]


@pytest.mark.usefixtures("short_descent")
@pytest.mark.parametrize(("name", "repair", "mask"), CHOICES)
def test_every_kind_of_network(name, repair, mask):
    model, batches = data(name)
    before = copy.deepcopy(model)
    refits = repair not in ("variance", "affine")
    budget = 16 if refits else 20
    result = sm.compress(model, batches, 0.6, mask=mask, repair=repair, budget=budget)
    check(result, model)
    assert same_state(model, before)
    assert result.search.repairs <= budget
    assert result.search.proxies > 0
    assert bool(downhill(result)) != refits


@pytest.mark.parametrize("name", ["conv-bn-linear", "linear-bn", "shortcut"])
def test_recalibrated_norms(name):
    model, batches = data(name)
    result = sm.compress(model, batches, 0.6, repair="batchnorm", budget=16)
    check(result, model)
    assert downhill(result)
    # With one repair what was found is what comes out.
    found = sm.agreement(result.model, model, batches[-1:], judge="direction")
    assert result.search.kl == found.loss


def test_the_budget_of_the_plain_rules_gives_the_best_of_them():
    model, batches = data("conv-bn-linear")
    result = sm.compress(model, batches, 0.6, repair="variance", budget=len(RULES), judge="kl")
    calibration = sm.calibrate(model, batches[:-1])
    diagnosis = sm.diagnose(model, calibration, "variance")
    alone = {
        rule: sm.compress(
            model,
            batches[:-1],
            0.6,
            rule,
            repair="variance",
            heldout=batches[-1:],
            diagnosis=diagnosis,
        )
        for rule in RULES
    }
    expected = {rule: one.agreement.kl for rule, one in alone.items()}
    assert result.search.plain_kl == expected
    winner = result.search.winner
    assert expected[winner] == min(expected.values()) == result.agreement.kl
    assert dict(result.allocation) == dict(alone[winner].allocation)
    assert same_state(result.model, alone[winner].model)
    assert len(result.search.trials) == len(RULES)


def test_a_larger_budget_never_ends_further_away():
    model, batches = data("shortcut")
    found = [
        sm.compress(model, batches, 0.6, repair="variance", budget=b).search for b in (1, 7, 14, 19)
    ]
    for one, other in itertools.pairwise(found):
        assert outline(other)[: len(one.trials)] == outline(one)
        assert other.kl <= one.kl
    measured = {trial.name: trial.counts for trial in found[-1].trials}
    seen = batches[:-1]
    alone = sm.compress(model, seen, 0.6, "sensitivity", repair="variance")
    assert measured["sensitivity"] == tuple(alone.allocation.values())


@pytest.mark.parametrize(
    ("repair", "mask"), [("variance", "magnitude"), ("reconstruct", "gradual")]
)
def test_results_repeat(repair, mask):
    model, batches = data("linear-bn")
    torch.manual_seed(1)
    one = sm.compress(model, batches, 0.6, mask=mask, repair=repair, budget=9)
    torch.manual_seed(2)
    other = sm.compress(model, iter(batches), 0.6, mask=mask, repair=repair, budget=9)
    assert outline(one.search) == outline(other.search)
    assert same_state(one.model, other.model)


def test_a_rule_that_the_budget_forbids_is_left_out():
    """uniform+ keeps the first convolution dense, which has more weights than the budget."""
    model, batches = data("conv")
    layers = discover(model, batches[0])
    assert layers[0].size > sm.allocation.kept_total(0.8, layers.total)
    result = sm.compress(model, batches, 0.8, repair="variance", budget=8)
    assert set(result.search.plain) == RULES - {"uniform+"}
    with pytest.raises(SparsemendError, match="no allocation over 3 layers"):
        sm.compress(model, batches, 0.9999, repair="variance")


# Layers that are too wide


def test_layers_that_are_too_wide_for_their_moments():
    model, batches = data("conv-bn-linear")
    wide = sm.calibrate(model, batches[:-1], max_fan_in=60)
    for repair, mask in (("variance", "magnitude"), ("reconstruct", "gradual")):
        result = sm.compress(
            model, batches, 0.6, mask=mask, repair=repair, budget=8, calibration=wide
        )
        check(result, model)
        assert result.diagnosis.repair == "variance"


def test_a_calibration_that_finds_a_layer_too_wide(monkeypatch):
    monkeypatch.setitem(sm.calibrate.__wrapped__.__kwdefaults__, "max_fan_in", 60)
    model, batches = data("conv-linear")
    result = sm.compress(model, batches, 0.6, repair="reconstruct", budget=8)
    check(result, model)


# The starts of the search


def test_plain_allocations_are_those_of_the_rules():
    model, batches = data("conv-bn-linear")
    session = Session(model, batches)
    diagnosis = sm.diagnose(model, session.calibration)
    found = plain_allocations(session, Recipe(0.6).quota(session), diagnosis)
    assert set(found) == RULES
    assert next(iter(found)) == "global"
    for rule, allocation in found.items():
        expected = sm.allocate(model, 0.6, rule, diagnosis=diagnosis, layers=session.layers)
        assert dict(allocation) == dict(expected)


def test_a_rule_of_ones_own_is_tried_too(monkeypatch):
    mine = dataclasses.replace(sm.allocation.RULES["uniform"], name="mine")
    monkeypatch.setitem(sm.allocation.RULES, "mine", mine)
    model, batches = data("linear")
    result = sm.compress(model, batches, 0.6, repair="variance", budget=8)
    assert "mine" in result.search.plain


def test_sensitivities_that_are_given_are_not_measured_again():
    model, batches = data("conv-bn-linear")
    calibration = sm.calibrate(model, batches[:-1])
    given = sm.diagnose(model, calibration, "affine", batches=batches[:1])
    result = sm.compress(model, batches, 0.6, repair="variance", budget=20, diagnosis=given)
    expected = sm.allocate(model, 0.6, "sensitivity", diagnosis=given, layers=calibration.layers)
    counts = {trial.name: trial.counts for trial in result.search.trials}
    assert counts["sensitivity"] == tuple(expected.values())


# Interrupts


def test_a_light_repair_is_judged_by_direction_unless_kl_is_asked_for():
    model, batches = data("conv-bn-linear")

    def label(repair, **options):
        return sm.compress(model, batches, 0.6, repair=repair, budget=1, **options).search.label

    assert label("variance") == "1 - cosine of scores"
    assert label("variance", judge="kl") == label("reconstruct") == "KL"


class Blocks(nn.Module):
    """Two residual blocks, the second of which is noise at any density but the full one."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Conv2d(4, 8, 3, padding=1)
        self.good, self.bad = (
            nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
            for _ in range(2)
        )
        with torch.no_grad():
            self.good[2].weight *= 3
            self.bad[2].weight *= 0.02
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.good(x))
        x = torch.relu(x + self.bad(x))
        return self.head(x.mean(dim=(2, 3)))


def test_residual_branches_are_tried_where_the_repair_is_light(monkeypatch):
    monkeypatch.setattr("sparsemend.search.auto.first_mixtures", lambda _: [])
    model = Blocks().eval()
    batches = [images(24, seed) for seed in range(3)]
    result = sm.compress(model, batches, 0.9, repair="variance", budget=16)
    assert "branches" in {trial.name for trial in result.search.trials}
    session = Session(model, batches)
    assert branching_cost(session, Recipe(0.9, repair="variance")) == 1 + 1.5 * 2
    assert branching_cost(session, Recipe(0.9, repair="reconstruct")) == 0


@pytest.mark.parametrize("at", [1, 4, 7])
def test_an_interrupt_ends_the_search_and_the_work_goes_on(monkeypatch, at):
    asked = []
    exact = allocations.Objective.exact

    def interrupted(self, counts):
        if len(asked) == at:
            raise KeyboardInterrupt
        asked.append(dict(counts))
        return exact(self, counts)

    monkeypatch.setattr(allocations.Objective, "exact", interrupted)
    model, batches = data("conv-bn-linear")
    result = sm.compress(model, batches, 0.6, repair="variance", budget=20, judge="kl")
    assert result.search.finished == "interrupted"
    assert len({trial.counts for trial in result.search.trials}) == at
    assert dict(result.allocation) in asked
    assert result.agreement.kl == result.search.kl
    assert "interrupted" in str(result.search)


def test_an_interrupt_before_the_first_trial(monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(allocations.Objective, "exact", interrupted)
    model, batches = data("conv-bn-linear")
    before = copy.deepcopy(model)
    with pytest.raises(KeyboardInterrupt):
        sm.compress(model, batches, 0.6, repair="variance", inplace=True)
    assert same_state(model, before)


# Which inputs are seen


class Log(set):
    """One for all replicas of a network, which have plain sets of their own."""


class Recorder(nn.Module):
    """Notes which inputs it is called with: the first value of each names it."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(4, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.head, self.log = nn.Linear(6, 5), Log()

    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.load_state_dict(self.state_dict())
        twin.log = self.log  # copies write into the same one
        return twin.train(self.training)

    def forward(self, x):
        self.log.update(int(v) for v in x[:, 0, 0, 0])
        return self.head(torch.relu(self.norm(self.conv(x))).mean(dim=(2, 3)))


def marked(batches, size):
    x = images(batches * size)
    x[:, 0, 0, 0] = x[:, 0, 0, -1] = torch.arange(float(batches * size))  # mirrored, too
    return list(x.split(size))


WATCHED = {
    "sparsemend.session.session.gather_moments": "fit",
    "sparsemend.repairs.reconstruct.reconstruct": "fit",
    "sparsemend.repairs.channelwise.repair_channelwise": "fit",
    "sparsemend.repairs.batchnorm.recalibrate": "fit",
    "sparsemend.search.objective.density_slopes": "fit",
    "sparsemend.search.allocations.with_sensitivities": "fit",
    "sparsemend.evaluation.Reference.__init__": "judge",
    "sparsemend.evaluation.Reference.agreement": "judge",
}


def phases(monkeypatch, model):
    """What the network sees while something calibrates or repairs, and while something judges."""
    seen, within = {"fit": set(), "judge": set()}, []

    def watch(inner, phase):
        def watched(*args, **kwargs):
            if within:  # what measures may compare outputs, too
                return inner(*args, **kwargs)
            model.log.clear()
            within.append(phase)
            found = inner(*args, **kwargs)
            seen[within.pop()] |= model.log
            return found

        return watched

    for path, phase in WATCHED.items():
        monkeypatch.setattr(path, watch(pkgutil.resolve_name(path), phase))
    return seen


@pytest.mark.usefixtures("short_descent")
@pytest.mark.parametrize(
    ("repair", "mask"), [("variance", "magnitude"), ("batchnorm", "activation"), ("best", None)]
)
@pytest.mark.parametrize("how", ["given", "held out", "lone batch"])
def test_no_repair_sees_the_inputs_that_judge(monkeypatch, repair, mask, how):
    model = Recorder().eval()
    batches = marked(1, 40) if how == "lone batch" else marked(5, 8)
    options = {"heldout": batches[3:]} if how == "given" else {}
    first = 24 if how == "given" else 32
    seen = phases(monkeypatch, model)
    shown = batches[:3] if how == "given" else batches
    result = sm.compress(model, shown, 0.6, mask=mask, repair=repair, budget=24, **options)
    # Cheap trials repair with the first eight and are judged on what else the repair may see.
    assert seen == {"fit": set(range(first)), "judge": set(range(8, 40))}
    assert result.heldout
    assert result.search.proxies > 0


def test_a_single_input_serves_as_both():
    model = conv_bn()
    result = sm.compress(model, images(1), 0.6, repair="variance", budget=8)
    assert not result.heldout
    assert result.agreement.count == 1
    # On one input the classifier is constant, so that it has no RR.
    assert set(result.search.plain) == RULES - {"rr-density"}
