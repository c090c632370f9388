import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp
from tests.reports.samples import (
    make_ablation,
    make_allocation,
    make_compression,
    make_diagnosis,
    make_records,
)

import sparsemend as sm
from sparsemend.reports import FIGURES, Report
from sparsemend.sweeps import SweepResult


def keys(report):
    return [figure.key for figure in report.figures]


def test_figures_by_source():
    assert keys(sm.report(make_diagnosis())) == ["repairability", "damage"]
    assert keys(sm.report(SweepResult(make_records()))) == [
        "recovery",
        "allocations",
        "accuracy",
        "label-free",
    ]
    assert keys(sm.report(SweepResult(make_ablation())))[-1] == "ablation"
    assert keys(sm.report(make_compression())) == [
        "before-and-after",
        "tried",
        "seconds",
        "allocations",
    ]
    few = make_records(sparsities=(0.9,))
    assert keys(sm.report(SweepResult(few))) == ["rules-and-repairs", "allocations"]


def test_a_result_of_compress(digits):
    result = sm.compress(digits.model, digits.calibration, 0.9, "rr", repair="variance")
    report = sm.report(result)
    assert keys(report) == ["coverage", "seconds", "repairability", "allocations", "damage"]
    rules = dict.fromkeys(row[0] for row in report.figures[3].table.rows)
    assert list(rules) == ["rr", "uniform", "erk"]
    assert report.summary[0].startswith("90\u00a0% of 77,072 weights removed")
    assert any("Compared with ERK" in sentence for sentence in report.summary)
    assert str(report) == "\n".join(report.summary)


def test_titles_and_what_was_measured():
    sweep = SweepResult(make_records())
    report = sm.report(sweep, make_compression(), make_diagnosis())
    assert report.title == "Sweep of net · Compression · Diagnosis"
    assert "72 cells, calibration seeds 0 to 2 · torch 2.13.0" in report.subtitle
    assert "repair variance, mask magnitude" in report.subtitle
    assert sm.report(sweep, title="Mine").title == "Mine"


def test_names_of_diagnoses():
    one, two = make_diagnosis(), dataclasses.replace(make_diagnosis(), repair="affine")
    titles = [f.title for f in sm.report(named={"a": one, "b": two}).figures]
    assert [t.rsplit(": ", 1)[1] for t in titles] == ["a", "b", "a", "b"]
    titles = [f.title for f in sm.report(one, two, two).figures[:3]]
    assert [t.rsplit(": ", 1)[-1] for t in titles[1:]] == ["repair affine", "repair affine (again)"]


def test_saving(tmp_path):
    report = sm.report(make_diagnosis())
    report.save(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == report.html()
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    with pytest.raises(sm.SparsemendError, match="cannot write there"):
        report.save(tmp_path / "no" / "r.html")


@pytest.mark.parametrize("ending", [".pdf", ".PNG", ".csv"])
def test_a_page_is_no_figure_and_no_table(tmp_path, ending):
    with pytest.raises(sm.SparsemendError, match=r"page of HTML.*\.html; save_figures writes"):
        sm.report(make_diagnosis()).save(tmp_path / f"report{ending}")
    assert not any(tmp_path.iterdir())


def test_the_same_twice():
    assert sm.report(make_diagnosis()).html() == sm.report(make_diagnosis()).html()


def test_bad_sources():
    with pytest.raises(sm.SparsemendError, match="needs at least one result"):
        sm.report()
    with pytest.raises(
        sm.SparsemendError, match="sources is of the wrong kind: got 3; allowed: a D"
    ):
        sm.report(3)
    with pytest.raises(sm.SparsemendError, match="cannot show this: got 'int'; allowed: a Diagn"):
        sm.report(named={"a": 3})
    with pytest.raises(sm.SparsemendError, match="one compression"):
        sm.report(make_compression(), make_compression())
    with pytest.raises(sm.SparsemendError, match="something to show"):
        sm.report(SweepResult(()))


def test_order_of_the_page():
    assert next(iter(FIGURES)) == "recovery"
    everything = sm.report(
        make_diagnosis(),
        make_allocation("erk", 40, 10, 50),
        SweepResult(make_records()),
    )
    assert isinstance(everything, Report)
    assert keys(everything)[:3] == ["recovery", "repairability", "allocations-1"]


@settings(max_examples=40)
@given(st.data(), st.integers(1, 3), st.integers(1, 4))
def test_any_diagnosis_can_be_shown(data, layers, densities):
    value = st.just(0.0) | st.floats(1e-9, 1e4)
    damage = stnp.arrays(np.float64, (layers, densities), elements=value)
    raw, residual = data.draw(damage), data.draw(damage)
    ratio = np.divide(residual, raw, out=np.full_like(raw, np.nan), where=raw > 0)
    diagnosis = sm.Diagnosis(
        tuple("abc"[:layers]), np.linspace(1, 100, densities) / 100, raw, residual, ratio, "mean"
    )
    text = sm.report(diagnosis).html()
    assert "nan" not in text.replace("nance", "")
    assert "inf" not in re.findall(r"<svg.*</svg>", text)[0]


@pytest.mark.parametrize("sparsities", [(0.0, 0.3, 0.5, 0.6), (0.9, 0.901, 0.902, 0.903)])
@pytest.mark.parametrize("top1", [0.0, 1.0])
def test_flat_sweeps_can_be_shown(sparsities, top1):
    records = make_records(sparsities=sparsities, seeds=(0,))
    flat = [dataclasses.replace(r, top1_repaired=top1, agreement=top1) for r in records]
    report = sm.report(SweepResult(tuple(flat)))
    assert "not crossed" in report.summary[0] or "before this sweep" in report.summary[0]
    assert "nan" not in report.html().replace("nance", "")


def test_a_network_of_a_hundred_layers_stays_small():
    names = [f"encoder.layers.{k}.attention.output" for k in range(100)]
    assert len(sm.report(make_diagnosis(names)).html().encode()) < 1_000_000


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
@pytest.mark.parametrize("quantity", ["raw", "residual", "rr"])
@pytest.mark.parametrize("where", [1, slice(None)])
def test_a_diagnosis_with_values_that_are_no_numbers(quantity, value, where):
    diagnosis = make_diagnosis()
    getattr(diagnosis, quantity)[where] = value
    text = sm.report(diagnosis).html()
    drawn = "".join(re.findall("<svg.*?</svg>", text))
    assert not re.search('[ "ML](nan|-?inf)[ "LZ]', drawn)
