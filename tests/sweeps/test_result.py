import csv
import json

import pytest
from tests.sweeps.samples import make_cell, make_record, make_settings

from sparsemend import SparsemendError
from sparsemend.sweeps import Estimate, Failure, SweepResult
from sparsemend.sweeps.store import open_store


def curve(rule, tops, seed=0):
    """Records of a dense accuracy of 0.9; agreement falls from 1 to chance."""
    agreements = dict(zip(tops, (1.0, 0.1), strict=True))
    return [
        make_record(
            make_cell(rule=rule, sparsity=sparsity, seed=seed),
            top1_dense=0.9,
            top1_repaired=top1,
            agreement=agreements[sparsity],
        )
        for sparsity, top1 in tops.items()
    ]


# Recovery 1 to 0 for erk: midpoint 0.8; 0.75 to 0.25 for rr: the same, and it leads from there.
RECORDS = (*curve("erk", {0.7: 0.9, 0.9: 0.1}), *curve("rr", {0.7: 0.7, 0.9: 0.3}))


def test_transitions_of_both_measures():
    result = SweepResult(RECORDS)
    found = result.transitions()
    assert [(t.measure, t.rule) for t in found] == [
        ("accuracy", "erk"), ("accuracy", "rr"), ("agreement", "erk"), ("agreement", "rr"),
    ]  # fmt: skip
    assert found[0].midpoint.mean == pytest.approx(0.8)
    assert found[2].midpoint.mean == pytest.approx(0.8)
    assert result.transitions("agreement") == found[2:]
    assert [lead.rule for lead in result.leads("accuracy")] == ["erk", "rr"]


def test_in_words():
    failed = [Failure(make_cell(sparsity=s), "too small", make_settings()) for s in (0.98, 0.99)]
    text = str(SweepResult(RECORDS, tuple(failed)))
    lines = text.splitlines()
    assert lines[0] == "4 cells"
    (erk,) = (line.split() for line in lines if line.startswith("n        erk"))
    assert erk == ["n", "erk", "magnitude", "mean", "0.8000", "0.7400", "to", "0.8600", "0.8000"]
    assert "leading rule by accuracy (recovery ahead of the next by up to)" in lines
    assert "  n magnitude mean: erk 0.7 to 0.8 (0.250), rr 0.8 to 0.9 (0.250)" in lines
    assert lines[-2] == "2 cells failed"
    assert lines[-1] == "  n erk magnitude mean at 0.98, seed 0 and 1 more: too small"


def test_seeds_in_words():
    records = RECORDS + tuple(curve("erk", {0.7: 0.9, 0.8: 0.1}, seed=1))
    text = str(SweepResult(records))
    assert "0.7750 ± 0.0354 (2)" in text
    assert "not within the sweep" in text


def test_without_labels_in_words():
    none = dict.fromkeys(("top1_dense", "top1_pruned", "top1_repaired"))
    records = tuple(
        make_record(make_cell(sparsity=sparsity), agreement=agreement, **none)
        for sparsity, agreement in ((0.8, 1.0), (0.9, 0.1))
    )
    text = str(SweepResult(records))
    assert "no labels: by agreement with the dense network" in text
    assert "0.8500" in text


def test_nothing_in_words():
    assert str(SweepResult(())) == "0 cells"
    assert str(SweepResult((), estimate=Estimate(0, 0))) == "0 cells"


def test_csv_holds_everything(tmp_path):
    unlabelled = make_record(make_cell(seed=9), top1_dense=None, top1_pruned=None,
                             top1_repaired=None, densities={"a.b": 1 / 3})  # fmt: skip
    SweepResult((*RECORDS, unlabelled)).to_csv(tmp_path / "s.csv")
    with (tmp_path / "s.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 5
    first, last = rows[0], rows[-1]
    assert (first["network"], first["rule"], float(first["sparsity"])) == ("n", "erk", 0.7)
    assert float(first["recovery_accuracy"]) == RECORDS[0].recovery("accuracy")
    assert float(first["recovery_agreement"]) == RECORDS[0].recovery("agreement")
    assert (first["calibration_size"], first["version_torch"]) == ("64", "2")
    assert (last["top1_dense"], last["recovery_accuracy"], last["seed"]) == ("", "", "9")
    assert json.loads(last["densities"]) == {"a.b": 1 / 3}
    SweepResult(()).to_csv(tmp_path / "empty.csv")


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "s.sqlite"
    with open_store(path) as opened:
        for limit in (100, 1000):
            opened.add(make_record(None, make_settings(test_size=limit)))
        opened.add(Failure(make_cell(sparsity=0.99), "no", make_settings(test_size=100)))
    return path


def test_a_store_of_several_settings_is_read_one_at_a_time(store):
    with pytest.raises(SparsemendError) as caught:
        SweepResult.load(store)
    assert "holds several results for n erk magnitude mean at 0.9, seed 0: got 'test_size'" in str(
        caught.value
    )
    assert "choose, as in load(path, test_size=100)" in str(caught.value)
    small, large = (SweepResult.load(store, test_size=size) for size in (100, 1000))
    assert [len(result.records) for result in (small, large)] == [1, 1]
    assert [len(result.failures) for result in (small, large)] == [1, 0]
    assert small.records[0].settings.test_size == 100


def test_bad_loads(store, tmp_path):
    with pytest.raises(SparsemendError, match="cells have no such setting: got 'limit'; allowed: "):
        SweepResult.load(store, limit=100)
    with pytest.raises(SparsemendError, match="there is no store"):
        SweepResult.load(tmp_path / "none.sqlite")
