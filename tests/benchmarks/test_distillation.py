"""Rows of a benchmark: made once, resumed, averaged over seeds."""

import pytest
import torch
from torch import nn

# Needs the repository's root on the path: python -m pytest.
benchmark = pytest.importorskip("benchmarks.distillation")

HEAD = ["rows", "--row", "cifar10_tiny", "0.5", "32", "--rule", "erk", "--steps", "0", "2"]


class Images:
    """A data set of noise."""

    def calibration_batches(self, size, batch_size, *, seed):
        generator = torch.Generator().manual_seed(seed)
        return list(torch.randn(size, 3, 8, 8, generator=generator).split(batch_size))

    def heldout_batches(self, size, batch_size, *, calibration_size, seed):  # noqa: ARG002
        return self.calibration_batches(16, batch_size, seed=100 + seed)

    def test_batches(self, limit=None):
        yield self.calibration_batches(limit or 20, 64, seed=7)[0], torch.zeros(limit or 20).long()


@pytest.fixture
def loads(monkeypatch):
    """How often the network was loaded."""
    loaded = []

    def load(*_):
        loaded.append(1)
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)
        return nn.Sequential(*layers).eval(), Images()

    monkeypatch.setattr(benchmark, "_load", load)
    return loaded


@pytest.mark.filterwarnings("ignore:reconstruction leans")
def test_finished_rows_are_not_computed_again(tmp_path, loads, capsys):
    store = ["--store", str(tmp_path / "rows.jsonl"), "--data", str(tmp_path)]
    benchmark.main([*HEAD, *store, "--seed", "0"])
    assert len(loads) == 2
    benchmark.main([*HEAD, *store, "--seed", "0", "1"])
    assert len(loads) == 4
    capsys.readouterr()
    benchmark.main(["table", *store])
    assert len(loads) == 4
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines()[2:]]
    assert [row[:6] for row in rows] == [
        ["| cifar10_tiny", "0.50", "32", "`erk`", steps, "0, 1"] for steps in ("0", "2")
    ]
    # Training keeps nothing that is farther from the dense network.
    before, after = (float(row[6].split(" ±")[0]) for row in rows)
    assert after <= before


def test_a_figure_of_several_numbers_of_images():
    def row(images, steps, top1):
        cell = {"network": "n", "sparsity": 0.9, "rule": "erk", "steps": steps, "seed": 0}
        result = {"top1": top1, "seconds": images / 10 + steps}
        return {"cell": {**cell, "images": images}, "result": result}

    assert benchmark.figure([row(32, 0, 0.5), row(32, 9, 0.6)]) is None
    drawn = benchmark.figure([row(64, 0, 0.6), row(32, 0, 0.5), row(32, 9, 0.6)])
    ((left, right),) = drawn.plates[0].rows
    for panel, title, spots in ((left, "unlabelled images", (32, 64)), (right, "minutes", None)):
        line = panel.marks[0]
        assert panel.x.title == title
        assert [y for _, y in line.points] == [50, 60]
        assert spots is None or tuple(x for x, _ in line.points) == spots
    assert drawn.table.rows == (
        ("n", 0.9, "erk", 0, 32, 0, 0.5, 3.2),
        ("n", 0.9, "erk", 0, 64, 0, 0.6, 6.4),
        ("n", 0.9, "erk", 9, 32, 0, 0.6, 12.2),
    )


def test_rows_need_data(tmp_path):
    with pytest.raises(SystemExit):
        benchmark.main(["rows", "--store", str(tmp_path / "rows.jsonl")])
