"""Sweeps of networks that are judged by something else than the KL of class scores."""

import dataclasses

import pytest
import torch
from tests.evaluation.networks import Shaped
from tests.sweeps.samples import make_record

import sparsemend as sm

X = torch.randn(96, 10, generator=torch.Generator().manual_seed(0))
BATCHES = list(X.split(16))
SPARSITIES = [0.3, 0.5, 0.7, 0.8, 0.9]


def sweep(model, **options):
    values = {"rules": ["erk", "global"], "repairs": "variance"} | options
    return sm.sweep(model, BATCHES, SPARSITIES, **values)


def test_a_regressor_has_a_transition(tmp_path):
    store = tmp_path / "s.sqlite"
    result = sweep(Shaped(lambda y: y[:, 0]), store=store)
    assert len(result.records) == 10
    for record in result.records:
        assert (record.judged, record.agreement, record.chance) == ("relative", None, None)
        assert record.recovery("agreement") == record.recovered == 1 - record.kl
        assert record.recovery("accuracy") is None
    assert {t.measure for t in result.transitions()} == {"agreement"}
    assert "no labels" in str(result)
    assert sm.SweepResult.load(store).records == result.records
    again = sweep(Shaped(lambda y: y[:, 0]), store=store)
    assert again.computed == 0
    figures = [figure.key for figure in sm.report(result).figures]
    assert "recovery" in figures
    result.to_csv(tmp_path / "s.csv")
    assert "None" not in (tmp_path / "s.csv").read_text()


def test_embeddings_recover_what_is_beyond_a_constant_one():
    result = sweep(Shaped(lambda y: {"embedding": y}))
    assert {record.judged for record in result.records} == {"cosine"}
    assert all(record.recovered < 1 for record in result.records)
    assert result.transitions()


def largest(dense, sparse):
    return (dense - sparse).abs().amax(dim=1)


def test_the_judge_is_a_setting(tmp_path):
    store, model = tmp_path / "s.sqlite", Shaped(lambda y: (y, y[:, :2]))
    both = sweep(model, store=store)
    one = sweep(model, store=store, output=0)
    other = sweep(model, store=store, output=0, judge=largest)
    assert [r.computed for r in (both, one, other)] == [10, 10, 10]
    assert sweep(model, store=store, output="0", judge=largest).computed == 0
    assert sm.SweepResult.load(store, output="0", judge="auto").records == one.records
    assert sm.SweepResult.load(store, judge="largest").records == other.records
    assert {r.judged for r in both.records} == {"kl+relative"}
    assert all(r.agreement is not None and r.chance == 1 / 6 for r in one.records)
    # A function does not say what a constant output would lose.
    assert other.transitions() == ()
    assert "recovery without labels is not defined for judge 'largest'" in str(other)
    sm.report(other)


@pytest.mark.parametrize("classes", [[0, 1] * 8, [0] * 16])
def test_a_dense_network_that_guesses_has_no_recovery(classes):
    model = Shaped(lambda y: y[:, :2])
    predicted = model(X[:16]).argmax(dim=1)
    # Right in half of the cases.
    labels = torch.where(torch.arange(16) % 2 == 0, predicted, 1 - predicted)
    if not any(classes):
        model = Shaped(
            lambda y: torch.stack([y[:, 0] * 0, y[:, 0] * 0 + 1], dim=1) + 1e-3 * y[:, :2]
        )
        labels = torch.zeros(16, dtype=torch.long)
    result = sweep(model, test=[(X[:16], labels)])
    assert len(result.records) == 10
    for record in result.records:
        assert record.guesses
        assert record.recovery("accuracy") is None
        assert record.recovery("agreement") is not None
    assert {t.measure for t in result.transitions()} == {"agreement"}
    assert "recovery of accuracy is not defined, because the dense network" in str(result)
    sm.report(result)


def test_recovery_of_accuracy_is_as_it_was():
    record = make_record()
    assert record.recovery("accuracy") == (0.6 - 0.1) / (0.95 - 0.1)
    assert record.recovery("agreement") == (0.7 - 0.1) / (1 - 0.1)
    assert dataclasses.replace(record, recovered=0.25).recovery("agreement") == 0.25
