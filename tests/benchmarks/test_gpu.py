import pytest
import torch

# Needs the repository's root on the path: python -m pytest.
gpu = pytest.importorskip("benchmarks.gpu")


def test_a_check_that_fails_is_said_in_its_row_and_the_others_go_on(monkeypatch):
    def fail(_):
        raise RuntimeError("no kernel\nmore")

    checks = {
        "fails": (fail, "0"),
        "curves": (gpu.against_cpu_curves, "1e-3"),
        "2:4": (gpu.two_of_four, "< 1"),
    }
    monkeypatch.setattr(gpu, "CHECKS", checks)
    _, _, *rows = gpu.table(gpu.Bench(torch.device("cpu"), tiny=True))
    cells = [[cell.strip() for cell in row.split("|")[1:6]] for row in rows]
    assert cells[0] == ["fails", "failed: no kernel", "", "", "0"]
    assert cells[1][:2] == ["curves", "0.0e+00"]
    assert cells[2][:2] == ["2:4", "not run"]
