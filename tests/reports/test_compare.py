import torch
from torch import nn

import sparsemend as sm
from sparsemend.reports import other_rules


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
    part = [layer for layer in sm.discover(model) if layer.name != "2"]
    chosen = sm.allocate(model, 0.8, "global", layers=part)
    (erk,) = other_rules(model, chosen, ("erk",))
    assert list(erk) == ["0", "4"]
