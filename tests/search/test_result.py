import json
import math

import pytest

from sparsemend.allocation import Allocation
from sparsemend.search import AllocationSearch, Trial

SIZES = {"conv1": 100, "fc": 400}


def make(kls=(0.5, 0.25, 0.125, 0.25), **changes):
    counts = [(60, 40), (80, 20), (90, 10), (80, 20)]
    names = ["uniform", "erk", "erk after 1 move", "lamp"]
    trials = [
        Trial(name, kept, kl, float(i))
        for i, (name, kept, kl) in enumerate(zip(names, counts, kls, strict=True))
    ]
    best = min(trials, key=lambda trial: trial.kl)
    values = {
        "allocation": Allocation(dict(zip(SIZES, best.counts, strict=True)), SIZES, "auto"),
        "winner": best.name,
        "kl": best.kl,
        "trials": tuple(trials),
        "plain": ("uniform", "erk", "lamp"),
        "proxies": 8,
        "repairs": 4.0,
        "seconds": 12.5,
        "finished": "budget spent",
        "reference": {"conv1": 0.8, "fc": 0.05},
    }
    return AllocationSearch(**{**values, **changes})


def test_the_plain_rules_the_closest_first():
    assert list(make().plain_kl.items()) == [("erk", 0.25), ("lamp", 0.25), ("uniform", 0.5)]


def test_text():
    assert str(make()).splitlines() == [
        "auto chose erk after 1 move: KL 0.1250 on held-out inputs "
        "(3 repairs and 8 cheaper trials, budget spent)",  # erk and lamp were one allocation
        "rule               KL  auto is lower by",
        "erk            0.2500            0.1250",
        "lamp           0.2500            0.1250",
        "uniform        0.5000            0.3750",
        "layer  density under erk   ratio",
        "conv1   0.9000    0.8000   1.12×",
        "fc      0.0250    0.0500   0.50×",
    ]


def test_long_names_keep_the_columns():
    sizes = {"layer1.0.downsample.0": 100, "fc": 400}
    allocation = Allocation(dict(zip(sizes, (90, 10), strict=True)), sizes, "auto")
    lines = str(make(allocation=allocation, reference=dict.fromkeys(sizes, 0.5))).splitlines()
    assert len({len(line) for line in lines[-3:]}) == 1


def test_without_anything_to_compare_with():
    lines = str(make(reference={})).splitlines()
    assert lines[-1].startswith("uniform")


def test_plain_data():
    values = make().to_dict()
    assert json.loads(json.dumps(values, allow_nan=False)) == values
    assert values["plain"] == {"erk": 0.25, "lamp": 0.25, "uniform": 0.5}
    assert values["trials"][2] == {
        "name": "erk after 1 move",
        "kl": 0.125,
        "seconds": 2.0,
        "counts": [90, 10],
    }
    assert (values["winner"], values["kl"], values["finished"]) == (
        "erk after 1 move",
        0.125,
        "budget spent",
    )
    assert (values["repairs"], values["proxies"], values["seconds"]) == (4.0, 8, 12.5)
    assert values["densities"] == {"conv1": 0.9, "fc": 0.025}
    assert values["erk_densities"] == {"conv1": 0.8, "fc": 0.05}


def test_a_rule_that_broke_the_network_is_null_in_json():
    found = make((math.inf, 0.25, 0.125, math.inf))
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["plain"] == {"erk": 0.25, "uniform": None, "lamp": None}
    assert values["trials"][0]["kl"] is None
    assert "uniform           inf               inf" in str(found)


def test_an_allocation_search_cannot_be_changed():
    with pytest.raises(AttributeError):
        make().kl = 0.0
