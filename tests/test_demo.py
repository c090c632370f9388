import csv

import pytest
import torch

import sparsemend as sm
from sparsemend import demo
from sparsemend.demo import Cell, DemoResult
from sparsemend.diagnosis import Diagnosis

SPARSITY = 0.9
REPAIRS = ("none", "variance", "batchnorm")


@pytest.fixture(scope="module")
def result(digits_cache, tmp_path_factory):  # noqa: ARG001
    folder = tmp_path_factory.mktemp("demo") / "made" / "for it"
    threads = torch.get_num_threads()
    found = demo.run(folder, sparsities=(SPARSITY,), repairs=REPAIRS, progress=False)
    assert torch.get_num_threads() == threads
    return found


def test_three_files(result):
    folder = result.files[0].parent
    assert [file.name for file in result.files] == [
        "diagnosis.json",
        "accuracies.csv",
        "sparse.safetensors",
    ]
    assert sorted(folder.iterdir()) == sorted(result.files)


def test_a_report_where_it_is_asked_for(result, tmp_path):
    assert result.report is None
    page = tmp_path / "page.html"
    small = {"sparsities": (SPARSITY,), "rules": ("erk",), "repairs": ("none",)}
    found = demo.run(tmp_path / "files", page=page, progress=False, **small)
    assert found.report == page
    assert "Demo on digits" in page.read_text(encoding="utf-8")


def test_every_rule_with_every_repair(result):
    grid = [(SPARSITY, rule, repair) for rule in sm.rule_names() for repair in REPAIRS]
    assert [(cell.sparsity, cell.rule, cell.repair) for cell in result.cells] == grid
    with result.files[1].open() as file:
        rows = list(csv.DictReader(file))
    cells = [
        Cell(float(r["sparsity"]), r["rule"], r["repair"], float(r["top1"]), float(r["kl"]))
        for r in rows
    ]
    assert cells == list(result.cells)
    assert all(0 <= cell.top1 <= 1 and cell.kl >= 0 for cell in cells)


def test_table(result):
    title, header, *lines = result.table(SPARSITY).splitlines()
    assert title == f"top-1 % at 90 % sparsity (dense {100 * result.dense.top1:.1f})"
    assert header.split() == ["rule", "none", "variance", "bn"]
    rows = {rule: values for rule, *values in map(str.split, lines)}
    assert list(rows) == list(sm.rule_names())
    for rule, values in rows.items():
        cells = [cell for cell in result.cells if cell.rule == rule]
        assert values == [f"{100 * cell.top1:.1f}" for cell in cells]


def test_table_of_one_of_several_sparsities(result):
    cells = (Cell(0.8, "a", "r", 0.9, 0), Cell(0.9, "a", "r", 0.5, 0))
    several = DemoResult(result.dense, result.diagnosis, cells, ())
    assert several.table(0.8).splitlines()[-1].split() == ["a", "90.0"]
    assert several.table(0.9).splitlines()[-1].split() == ["a", "50.0"]


def test_best_is_the_network_that_was_written(result, digits):
    best = result.best
    assert best.top1 == max(cell.top1 for cell in result.cells)
    assert best is next(cell for cell in result.cells if cell.top1 == best.top1)
    loaded = sm.models.load("digits", result.files[2])
    assert loaded.metadata["rule"] == best.rule
    assert loaded.metadata["repair"] == best.repair
    assert float(loaded.metadata["sparsity"]) == pytest.approx(SPARSITY, abs=1e-4)
    assert loaded.metadata["architecture"] == "digits"
    assert sm.evaluate(loaded.model, digits.test).top1 == pytest.approx(best.top1)
    assert loaded.mean == sm.models.load("digits").mean


def test_what_it_shows(result, digits):
    assert result.dense.top1 == sm.evaluate(digits.model, digits.test).top1
    assert result.dense.top1 > 0.97
    top1 = {(cell.rule, cell.repair): cell.top1 for cell in result.cells}
    for rule in sm.rule_names():
        assert top1[rule, "variance"] > top1[rule, "none"]
    assert Diagnosis.load(result.files[0]).layers == result.diagnosis.layers


def test_defaults_cover_all_rules_and_the_repairs_of_the_method():
    assert demo.SPARSITIES == (0.8, 0.9, 0.95)
    assert {"none", "mean", "variance", "layerwise", "shrinkage", "affine"} <= set(demo.REPAIRS)
    assert {"batchnorm", "batchnorm-ema"} <= set(demo.REPAIRS)


def test_the_first_of_equals_is_best(result):
    cells = (Cell(0.8, "a", "r", 0.9, 0), Cell(0.9, "b", "r", 0.5, 0), Cell(0.9, "c", "r", 0.5, 0))
    assert DemoResult(result.dense, result.diagnosis, cells, ()).best.rule == "b"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sm.SparsemendError, match="the demo's folder cannot be made"):
        demo.run(tmp_path / "file" / "below")
