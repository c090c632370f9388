from __future__ import annotations

import importlib.util

import pytest
import torch
from tests.graphs.networks import random_network

import sparsemend as sm
from sparsemend.exports.formats.registry import FORMATS


def test_a_smaller_program_of_plain_pytorch(tmp_path):
    model, x = random_network(11)
    first = next(m for m in model.modules() if isinstance(m, torch.nn.Conv2d))
    first.weight.data.zero_()
    done = sm.export(model, tmp_path / "net.pt2", "shrink", example=x)
    assert done.error < 1e-4
    program = torch.export.load(tmp_path / "net.pt2").module()
    torch.testing.assert_close(program(x), model(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_what_fails_its_check_leaves_what_was_there(tmp_path, monkeypatch, name):
    if name == "onnx":
        pytest.importorskip("onnxscript")
    model, x = torch.nn.Linear(3, 2).eval(), torch.ones(1, 3)
    path = tmp_path / f"net{''.join(FORMATS[name].endings[:1])}"
    sm.export(model, path, name, example=x)
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    monkeypatch.setattr("sparsemend.exports.exporting._error", lambda *_: 1.0)
    with pytest.raises(sm.SparsemendError, match="are not the network's"):
        sm.export(torch.nn.Linear(3, 2).eval(), path, name, example=x)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    model, x = random_network(4)
    done = sm.export(model, tmp_path / "net.onnx", "onnx", example=x)
    assert done.error < 1e-4


def test_onnx_without_the_extra_says_so(tmp_path, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found(name)
    )
    with pytest.raises(sm.SparsemendError, match=r"needs the extra onnx.*sparsemend\[onnx\]"):
        sm.export(torch.nn.Linear(1, 1), tmp_path / "net.onnx", "onnx", example=torch.ones(1, 1))
    assert not list(tmp_path.iterdir())
