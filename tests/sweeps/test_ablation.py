import csv

import pytest
from tests.sweeps.samples import make_cell, make_record

from sparsemend.allocation import ForcedRule
from sparsemend.sweeps import AblationResult, Failure, SweepResult

RULE = ForcedRule("erk", "projection", "lamp")


def record(rule, seed, top1, density=0.5, sparsity=0.9, **values):
    densities = {"down": density, "up": density / 2, "fc": 1.0}
    return make_record(make_cell(rule=rule, seed=seed, sparsity=sparsity), top1_dense=1.0,
                       top1_repaired=top1, densities=densities, **values)  # fmt: skip


def ablation(records, failures=()):
    layers = {"n": ("down", "up")}
    return AblationResult(RULE, layers, SweepResult(tuple(records), tuple(failures)))


# Recovery is (top-1 − 0.1) / 0.9.
TWO_SEEDS = [
    record("erk", 0, 0.55, 0.8), record(str(RULE), 0, 0.64), record("lamp", 0, 0.28, 0.4),
    record("erk", 1, 0.46, 0.8), record(str(RULE), 1, 0.64), record("lamp", 1, 0.28, 0.4),
]  # fmt: skip


def test_recoveries_are_compared_seed_by_seed():
    (found,) = ablation(TWO_SEEDS).comparisons()
    assert (found.network, found.sparsity, found.measure) == ("n", 0.9, "accuracy")
    assert found.base.mean == pytest.approx(0.45)
    assert found.forced.mean == pytest.approx(0.6)
    assert found.source.mean == pytest.approx(0.2)
    assert found.gain.mean == pytest.approx(0.15)
    assert found.gain.std == pytest.approx(0.1 / 2**0.5)  # gains 0.1 and 0.2
    assert (found.base_density, found.source_density) == pytest.approx((0.6, 0.3))


def test_seeds_that_lack_a_rule_are_left_out():
    (found,) = ablation([*TWO_SEEDS, record("erk", 2, 1.0), record("lamp", 2, 1.0)]).comparisons()
    assert found.base.count == found.gain.count == 2
    assert ablation(TWO_SEEDS[:2]).comparisons() == ()


def test_without_labels_agreement_is_compared():
    records = [record(rule, 0, None, agreement=a) for rule, a in
               (("erk", 0.55), (str(RULE), 0.1), ("lamp", 1.0))]  # fmt: skip
    (found,) = ablation(records).comparisons()
    assert found.measure == "agreement"
    assert found.gain.mean == pytest.approx(-0.5)
    (other,) = ablation(TWO_SEEDS).comparisons("agreement")
    assert other.gain.mean == 0


def test_in_words():
    harsher = [record(rule, 0, top1, sparsity=0.95) for rule, top1 in
               (("erk", 0.3), (str(RULE), 0.21), ("lamp", 0.2))]  # fmt: skip
    failure = Failure(make_cell(sparsity=0.99), "too small")
    lines = str(ablation(TWO_SEEDS + harsher, [failure])).splitlines()
    assert lines[0] == "n: lamp's densities instead of erk's in down, up"
    assert "recovery by accuracy" in lines
    assert "0.4500 ± 0.0707 (2)" in str(lines)
    assert (
        "forcing raises recovery in 1 and lowers it in 1 of 2 comparisons; mean gain +0.0250"
        in lines
    )
    assert lines[-1].endswith("too small")
    assert "recovery" not in str(ablation([]))


def test_csv(tmp_path):
    ablation(TWO_SEEDS).to_csv(tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["gain_mean"]) == pytest.approx(0.15)
    assert (row["gain_count"], row["repair"]) == ("2", "mean")
