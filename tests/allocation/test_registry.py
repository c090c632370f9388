"""A rule of one's own: one record in the registry, and everything knows it."""

import inspect

import pytest
import torch
from tests.repairs.networks import conv_bn, images
from torch.utils.data import DataLoader, TensorDataset

import sparsemend as sm
from sparsemend.allocation import (
    RULES,
    Rule,
    allocate_layers,
    check_rule,
    get_rule,
    needs_diagnosis,
    round_to_budget,
    rule_names,
)
from sparsemend.errors import SparsemendError
from sparsemend.layers import layer_weights
from sparsemend.reports import other_rules
from sparsemend.reports.drawing.figure import Dot, Group

SPARSITY = 0.6


def by_damage(problem, *, floor=0.1):
    """Density in proportion to the mean damage that repair leaves."""
    _, residual = problem.curves("residual", rule="mine")
    return round_to_budget(residual.mean(axis=1) + floor, problem.sizes, problem.keep)


MINE = Rule("mine", by_damage, needs="diagnosis", colour="sky")


@pytest.fixture
def mine(monkeypatch):
    monkeypatch.setitem(RULES, MINE.name, MINE)


@pytest.fixture(scope="module")
def model():
    return conv_bn()


@pytest.fixture(scope="module")
def diagnosis(model):
    return sm.diagnose(model, sm.calibrate(model, images(24)))


def test_records():
    assert rule_names() == tuple(RULES)
    for name, rule in RULES.items():
        assert rule.name == name
        assert inspect.getdoc(rule.counts)
        assert get_rule(name) is rule
    for sparsity in (0.5, 0.949, 0.95, 0.99):
        ranks = [rule.rank_at(sparsity) for rule in RULES.values()]
        assert len({*ranks}) == len(ranks)
    colours = [rule.colour for rule in RULES.values()]
    assert len({*colours, "ink", ""}) == len(colours) + 2


@pytest.mark.parametrize("name", RULES)
def test_rules_need_what_they_say(name, model):
    layers, needs = sm.discover(model), RULES[name].needs
    weights = {} if needs == "shapes" else layer_weights(model, layers)
    missing = {"columns": "the inputs' second moments"}.get(needs, "a diagnosis")
    if RULES[name].diagnosed or needs == "columns":
        with pytest.raises(SparsemendError, match=f"rule '{name}' needs {missing}"):
            allocate_layers(layers, weights, SPARSITY, name)
    else:
        assert allocate_layers(layers, weights, SPARSITY, name).rule == name
    if needs == "weights":
        with pytest.raises(SparsemendError, match="no weight tensor"):
            allocate_layers(layers, {}, SPARSITY, name)


@pytest.mark.usefixtures("mine")
def test_it_is_known_alone_and_as_a_part():
    assert "mine" in rule_names()
    for name in ("mine", "erk[first=mine]", "mine[first=erk]"):
        check_rule(name)
        assert needs_diagnosis(name)
    assert not needs_diagnosis("erk[first=lamp]")
    assert not needs_diagnosis("unknown")


@pytest.mark.usefixtures("mine")
def test_allocate(model, diagnosis):
    allocation = sm.allocate(model, SPARSITY, "mine", diagnosis=diagnosis)
    erk = sm.allocate(model, SPARSITY, "erk", diagnosis=diagnosis)
    assert (allocation.rule, allocation.kept) == ("mine", erk.kept)
    assert dict(allocation) != dict(erk)
    flat = sm.allocate(model, SPARSITY, "mine", diagnosis=diagnosis, floor=1e9)
    assert dict(flat) == dict(sm.allocate(model, SPARSITY, "uniform", diagnosis=diagnosis))
    with pytest.raises(SparsemendError, match="rule 'mine' needs a diagnosis"):
        sm.allocate(model, SPARSITY, "mine")


@pytest.mark.usefixtures("mine")
def test_compress_and_report(model):
    result = sm.compress(model, images(24), SPARSITY, "mine", repair="variance")
    expected = sm.allocate(model, SPARSITY, "mine", diagnosis=result.diagnosis)
    assert dict(result.allocation) == dict(expected)
    figure = next(f for f in sm.report(result).figures if f.key == "allocations")
    first = figure.plates[0].rows[0][0]
    assert first.title == "mine"
    dots = [m for g in first.marks if isinstance(g, Group) for m in g.marks if isinstance(m, Dot)]
    assert {dot.colour for dot in dots} == {"sky"}
    assert len(dots) == len(result.allocation)


@pytest.mark.usefixtures("mine")
def test_the_report_compares_it_where_there_is_a_diagnosis(model, diagnosis):
    erk = sm.allocate(model, SPARSITY, "erk")
    assert "mine" not in [a.rule for a in other_rules(model, erk)]
    found = {a.rule: a for a in other_rules(model, erk, diagnosis=diagnosis)}
    assert dict(found["mine"]) == dict(sm.allocate(model, SPARSITY, "mine", diagnosis=diagnosis))


@pytest.mark.parametrize("rank", [-1, RULES["erk"].rank + 0.5, MINE.rank])
def test_auto_tries_it_in_the_order_of_its_rank(monkeypatch, model, rank):
    monkeypatch.setitem(RULES, "mine", Rule("mine", by_damage, needs="diagnosis", rank=rank))
    known = (r for r in RULES.values() if r.searched and r.needs != "sensitivities")
    order = [rule.name for rule in sorted(known, key=lambda rule: rule.rank)]
    result = sm.compress(model, images(24), SPARSITY, repair="variance", budget=len(order))
    assert [trial.name for trial in result.search.trials] == order
    assert "mine" in result.search.plain


def test_auto_leaves_it_out_only_where_it_may_refuse(monkeypatch, model):
    def refuse(_):
        raise SparsemendError("not these layers")

    for may_refuse in (True, False):
        rule = Rule("mine", refuse, needs="shapes", may_refuse=may_refuse)
        monkeypatch.setitem(RULES, "mine", rule)
        if may_refuse:
            result = sm.compress(model, images(24), SPARSITY, repair="variance", budget=1)
            assert "mine" not in result.search.plain
        else:
            with pytest.raises(SparsemendError, match="not these layers"):
                sm.compress(model, images(24), SPARSITY, repair="variance", budget=1)


@pytest.mark.usefixtures("mine")
def test_sweep(model):
    inputs = images(24)
    test = DataLoader(TensorDataset(inputs, torch.arange(24) % 5), batch_size=12)
    result = sm.sweep(
        model, lambda _: inputs, SPARSITY, test=test, rules=["erk", "mine"], repairs="variance"
    )
    assert [record.cell.rule for record in result.records] == ["erk", "mine"]
