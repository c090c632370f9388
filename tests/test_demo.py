import csv
import dataclasses

import pytest
import torch
from tests.sweeps.samples import make_cell, make_record

import sparsemend as sm
from sparsemend import demo
from sparsemend.demo import row
from sparsemend.diagnosis import Diagnosis

SPARSITY = 0.9
REPAIRS = ("none", "variance", "batchnorm")


def record(sparsity, rule, top1):
    return make_record(make_cell(sparsity=sparsity, rule=rule, repair="r"), top1_repaired=top1)


@pytest.fixture(scope="module")
def result(digits_cache, tmp_path_factory):  # noqa: ARG001
    folder = tmp_path_factory.mktemp("demo") / "made" / "for it"
    threads = torch.get_num_threads()
    found = demo.run(folder, sparsities=(SPARSITY,), repairs=REPAIRS, progress=False)
    assert torch.get_num_threads() == threads
    return found


def test_files(result):
    folder = result.files[0].parent
    assert [file.name for file in result.files] == [
        "diagnosis.json",
        "accuracies.csv",
        "sparse.safetensors",
        "sparse.packed",
    ]
    assert sorted(folder.iterdir()) == sorted(result.files)


def test_the_best_network_is_packed_and_timed(result):
    assert result.export.path == result.files[-1]
    assert result.export.size < 0.2 * result.export.dense_size
    assert {"pytorch", "sparsemend"} <= set(result.timing.milliseconds)
    assert result.timing.packed_bytes == pytest.approx(result.export.size, rel=0.1)


def test_a_report_where_it_is_asked_for(result, tmp_path):
    assert result.report is None
    page = tmp_path / "page.html"
    small = {"sparsities": (SPARSITY,), "rules": ("erk",), "repairs": ("none",)}
    found = demo.run(tmp_path / "files", page=page, progress=False, **small)
    assert found.report == page
    assert "Demo on digits" in page.read_text(encoding="utf-8")


def test_every_rule_with_every_repair(result):
    grid = [(SPARSITY, rule, repair) for rule in sm.rule_names() for repair in REPAIRS]
    cells = [record.cell for record in result.records]
    assert [(cell.sparsity, cell.rule, cell.repair) for cell in cells] == grid
    with result.files[1].open() as file:
        rows = list(csv.DictReader(file))
    numbers = ("sparsity", "top1", "kl")
    rows = [{**found, **{name: float(found[name]) for name in numbers}} for found in rows]
    assert rows == [row(record) for record in result.records]
    assert all(0 <= found["top1"] <= 1 and found["kl"] >= 0 for found in rows)


def test_table(result):
    title, header, *lines = result.table(SPARSITY).splitlines()
    assert title == f"top-1 % at 90 % sparsity (dense {100 * result.dense.top1:.1f})"
    assert header.split() == ["rule", "none", "variance", "bn"]
    rows = {rule: values for rule, *values in map(str.split, lines)}
    assert list(rows) == list(sm.rule_names())
    for rule, values in rows.items():
        records = [record for record in result.records if record.cell.rule == rule]
        assert values == [f"{100 * record.top1_repaired:.1f}" for record in records]


def test_table_of_one_of_several_sparsities(result):
    records = (record(0.8, "a", 0.9), record(0.9, "a", 0.5))
    several = dataclasses.replace(result, records=records)
    assert several.table(0.8).splitlines()[-1].split() == ["a", "90.0"]
    assert several.table(0.9).splitlines()[-1].split() == ["a", "50.0"]


def test_best_is_the_network_that_was_written(result, digits):
    best = result.best
    top1 = [record.top1_repaired for record in result.records]
    assert best.top1_repaired == max(top1)
    assert best is result.records[top1.index(max(top1))]
    loaded = sm.models.load("digits", result.files[2])
    assert loaded.metadata["rule"] == best.cell.rule
    assert loaded.metadata["repair"] == best.cell.repair
    assert float(loaded.metadata["sparsity"]) == pytest.approx(SPARSITY, abs=1e-4)
    assert loaded.metadata["architecture"] == "digits"
    assert sm.evaluate(loaded.model, digits.test).top1 == pytest.approx(best.top1_repaired)
    assert loaded.mean == sm.models.load("digits").mean


def test_what_it_shows(result, digits):
    assert result.dense.top1 == sm.evaluate(digits.model, digits.test).top1
    assert result.dense.top1 > 0.97
    top1 = {(r.cell.rule, r.cell.repair): r.top1_repaired for r in result.records}
    for rule in sm.rule_names():
        assert top1[rule, "variance"] > top1[rule, "none"]
    assert Diagnosis.load(result.files[0]).layers == result.diagnosis.layers


def test_defaults_cover_all_rules_and_the_repairs_of_the_method():
    assert demo.SPARSITIES == (0.8, 0.9, 0.95)
    assert {"none", "mean", "variance", "layerwise", "shrinkage", "affine"} <= set(demo.REPAIRS)
    assert {"batchnorm", "batchnorm-ema"} <= set(demo.REPAIRS)


def test_the_first_of_equals_is_best(result):
    records = (record(0.8, "a", 0.9), record(0.9, "b", 0.5), record(0.9, "c", 0.5))
    assert dataclasses.replace(result, records=records).best.cell.rule == "b"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sm.SparsemendError, match="the demo's folder cannot be made"):
        demo.run(tmp_path / "file" / "below")
