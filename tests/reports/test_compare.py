import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.allocation import RULES, Rule
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.layers import count_multiplications, kept_multiplications
from sparsemend.reports.compare import other_rules, rules_of_shapes
from sparsemend.targets import KINDS, Target


def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten(), nn.Linear(128, 10)]
    return nn.Sequential(*layers)


def test_the_same_budget_by_every_rule():
    model = network()
    chosen = sm.allocate(model, 0.8, "erk")
    found = other_rules(model, chosen)
    assert [a.rule for a in found] == ["uniform", "uniform+", "global", "lamp"]
    for allocation in found:
        assert allocation.kept == chosen.kept
        assert list(allocation) == list(chosen)
        assert dict(allocation) == dict(sm.allocate(model, 0.8, allocation.rule))


def test_with_a_diagnosis():
    model, inputs = network(), torch.randn(32, 1, 8, 8)
    diagnosis = sm.diagnose(model, sm.calibrate(model, inputs))
    chosen = sm.allocate(model, 0.8, "global", diagnosis=diagnosis)
    rules = [a.rule for a in other_rules(model, chosen, diagnosis=diagnosis)]
    assert {"rr", "rr-density"} <= set(rules)


def test_only_the_layers_that_were_pruned():
    model = network()
    chosen = sm.allocate(model, 0.8, "global", exclude=["2"])
    (erk,) = other_rules(model, chosen, ("erk",))
    assert list(erk) == ["0", "4"]


def test_rules_that_refuse_are_left_out():
    model = network()
    chosen = sm.allocate(model, 0.94, "erk")
    with pytest.raises(SparsemendError, match="the largest feasible sparsity"):
        sm.allocate(model, 0.94, "uniform+")
    assert [a.rule for a in other_rules(model, chosen)] == ["uniform", "global", "lamp"]
    diagnosis = sm.diagnose(model, sm.calibrate(model, torch.randn(32, 1, 8, 8)))
    undefined = dataclasses.replace(diagnosis, rr=np.full_like(diagnosis.rr, np.nan))
    rules = [a.rule for a in other_rules(model, chosen, diagnosis=undefined)]
    assert rules == ["uniform", "global", "lamp", "rr"]


@pytest.mark.parametrize(
    ("error", "text"),
    [(SparsemendError("it is not a share", 2), "got 2"), (IndexError("no 3"), "IndexError: no 3")],
)
def test_a_rule_that_fails_is_left_out_with_a_warning(monkeypatch, error, text):
    def fail(_):
        raise error

    monkeypatch.setitem(RULES, "mine", Rule("mine", fail, needs="shapes"))
    model = network()
    with pytest.warns(SparsemendWarning, match=f"rule 'mine' is not compared: .*{text}"):
        found = other_rules(model, sm.allocate(model, 0.8, "erk"))
    assert [a.rule for a in found] == ["uniform", "uniform+", "global", "lamp"]


def test_layers_of_another_network_are_not_compared():
    chosen = sm.allocate(nn.Sequential(nn.Flatten(), nn.Linear(9, 3)), 0.5, "erk")
    with pytest.warns(SparsemendWarning, match="no rule is compared: no prunable layer"):
        assert other_rules(network(), chosen) == ()


def test_an_unknown_rule_is_refused():
    model = network()
    with pytest.raises(SparsemendError, match="unknown allocation rule"):
        other_rules(model, sm.allocate(model, 0.8), ["snip"])


def test_rules_of_shapes_need_nothing_else():
    model = network()
    chosen = sm.allocate(model, 0.8, "global")
    for module in model.modules():
        if hasattr(module, "weight"):
            nn.init.zeros_(module.weight)
    names = rules_of_shapes()
    assert "erk" in names
    before = [dict(a) for a in other_rules(network(), chosen, names)]
    assert [dict(a) for a in other_rules(model, chosen, names)] == before


@pytest.mark.parametrize("kind", ["flops", "latency", "size"])
def test_of_a_target_at_the_same_cost(kind):
    model, inputs = network(), torch.randn(4, 1, 8, 8)
    layers = sm.discover(model, inputs)
    dense = count_multiplications(model, layers, inputs)
    chosen = sm.allocate(model, target_flops=0.3, rule="lamp", example=inputs)
    target = Target(KINDS[kind], 0.3)
    others = other_rules(model, chosen, target=target, multiplications=dense)
    assert "erk" in [other.rule for other in others]
    spent = kept_multiplications(dense, chosen, chosen.sizes)
    for other in others:
        if kind == "size":  # which is of weights
            assert other.kept == chosen.kept
        else:
            found = kept_multiplications(dense, other, other.sizes)
            assert 0.98 * spent < found <= spent
