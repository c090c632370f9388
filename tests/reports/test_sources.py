import json

import pytest
from tests.reports.samples import make_allocation, make_diagnosis

import sparsemend as sm
from sparsemend.reports import Compression
from sparsemend.reports.sources import load_source

PRINTED = {
    "counts": {"a": 40, "b": 10},
    "sizes": {"a": 100, "b": 400},
    "rule": "erk",
    "mask": "gradual",
    "repair": "reconstruct",
    "tried": {"reconstruct": 0.25},
    "scope": "sequential",
    "kl": 0.25,
    "agreement": 0.9,
    "heldout": True,
    "added_biases": ["a"],
    "seconds": {"repair": 2.0},
    "top1_dense": 0.9,
    "top1_pruned": 0.1,
    "top1_repaired": None,
    "kept": 50,
    "sparsity": 0.9,
}


def test_diagnoses(tmp_path):
    for name in ("d.json", "d.npz"):
        make_diagnosis().save(tmp_path / name)
        found = load_source(tmp_path / name)
        assert isinstance(found, sm.Diagnosis)
        assert found.layers == make_diagnosis().layers


def test_a_printed_compression(tmp_path):
    (tmp_path / "c.json").write_text(json.dumps(PRINTED))
    found = load_source(tmp_path / "c.json")
    assert isinstance(found, Compression)
    assert found.allocation.sparsity == 0.9
    assert (found.top1_dense, found.top1_repaired, found.added_biases) == (0.9, None, ("a",))


def test_a_printed_allocation(tmp_path):
    allocation = make_allocation("erk", 40, 10, 50)
    (tmp_path / "a.json").write_text(json.dumps(allocation.to_dict()))
    assert load_source(tmp_path / "a.json") == allocation


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("x.json", "{", r"the result file cannot be read \(Expecting"),
        ("x.json", "[1]", "this JSON is no result that a report can show"),
        ("x.json", '{"format": "sparsemend-diagnosis"}', "this JSON is no result that"),
        ("x.json", '{"counts": {}, "tried": {}, "kl": 1}', "this is no result of compress"),
        ("x.txt", "", "unknown ending of a result: got '.*x.txt'; allowed: .json, .npz"),
        ("x.npz", "rubbish", "the diagnosis file cannot be read"),
    ],
)
def test_other_files(tmp_path, name, content, text):
    (tmp_path / name).write_text(content)
    with pytest.raises(sm.SparsemendError, match=text):
        load_source(tmp_path / name)


def test_missing_files(tmp_path):
    with pytest.raises(sm.SparsemendError, match="there is no result file"):
        load_source(tmp_path / "x.json")


@pytest.mark.parametrize("opening", ["[", '{"format": "sparsemend-diagnosis", "layers": ['])
def test_deep_nesting_is_no_json(tmp_path, opening):
    path = tmp_path / "x.json"
    path.write_text(opening * 100_000)
    for read in (load_source, sm.Diagnosis.load, sm.Allocation.load):
        with pytest.raises(sm.SparsemendError, match="nested too deeply"):
            read(path)


@pytest.mark.parametrize(
    "changed", [{"kept": 3}, {"sizes": [1]}, {"rule": 3}, {"kept": {"a": "1"}}, {"kept": {"b": 1}}]
)
def test_allocations_of_other_types(tmp_path, changed):
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"kept": {"a": 1}, "sizes": {"a": 2}, "rule": "erk"} | changed))
    with pytest.raises(sm.SparsemendError, match=r"allocation|count"):
        load_source(path)
