import dataclasses
import json

import pytest
from tests.reports.samples import make_diagnosis, make_records

import sparsemend as sm
from sparsemend.sweeps import SweepResult
from sparsemend.sweeps.records import Settings
from sparsemend.sweeps.store import open_store


@pytest.fixture
def diagnosis(tmp_path):
    make_diagnosis().save(tmp_path / "d.json")
    return "d.json"


def test_text(run, diagnosis, tmp_path):
    result = run("report", diagnosis, "--out", "r.html", "--title", "Mine")
    assert result.exit_code == 0
    expected = sm.report(named={"d": make_diagnosis()}, title="Mine")
    assert result.stdout == f"{expected}\nwrote r.html\n"
    assert (tmp_path / "r.html").read_text(encoding="utf-8") == expected.html()


def test_beside_its_source_by_default(run_json, diagnosis, tmp_path):
    values = run_json("report", diagnosis)
    assert values["out"] == "d.html"
    assert values["figures"] == ["repairability", "damage"]
    assert values["files"] == []
    assert values["summary"] == list(sm.report(named={"d": make_diagnosis()}).summary)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["d.html", "d.json"]


def test_figures_for_papers(run_json, diagnosis, tmp_path):
    values = run_json("report", diagnosis, "--svg", "figures")
    assert values["files"] == ["figures/repairability.svg", "figures/damage.svg"]
    values = run_json("report", diagnosis, "--csv", "numbers")
    assert values["files"] == ["numbers/repairability.csv", "numbers/damage.csv"]
    pytest.importorskip("resvg_py")
    values = run_json("report", diagnosis, "--png", "figures")
    assert values["files"] == ["figures/repairability.png", "figures/damage.png"]
    assert len(list((tmp_path / "figures").iterdir())) == 4


def test_several_sources(run_json, diagnosis, tmp_path):
    make_diagnosis().save(tmp_path / "e.npz")
    allocation = sm.Allocation({"a": 1, "b": 9}, {"a": 10, "b": 90}, "erk")
    (tmp_path / "a.json").write_text(json.dumps(allocation.to_dict()))
    values = run_json("report", diagnosis, "e.npz", "a.json", "--out", "all.html")
    assert values["figures"] == [
        *("repairability-1", "repairability-2", "allocations", "damage-1", "damage-2"),
    ]


def test_a_sweep(run_json, tmp_path):
    settings = Settings("sequential", 512, 256, 100, 128, weights="w", inputs="i", test="t")
    with open_store(tmp_path / "sweep.sqlite") as store:
        for record in make_records():
            store.add(dataclasses.replace(record, settings=settings))
    values = run_json("report", "sweep.sqlite")
    assert values["out"] == "sweep.html"
    assert values["figures"] == ["recovery", "allocations", "accuracy", "label-free"]
    assert values["summary"] == list(sm.report(SweepResult(make_records())).summary)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("no.json",), "there is no result file: got 'no.json'"),
        (("d.json", "--out", "r.pdf"), "--out has another ending: got 'r.pdf'; allowed: .html"),
        (("d.json", "--out", "no/r.html"), "the folder of --out does not exist: got 'no'"),
        (("d.json", "x.txt"), "unknown ending of a result: got 'x.txt'"),
        (("d.json", "--svg", "d.json"), "the folder for figures cannot be made"),
    ],
)
@pytest.mark.usefixtures("diagnosis")
def test_bad_input(refused, arguments, text):
    assert text in refused("report", *arguments)
