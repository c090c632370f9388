from __future__ import annotations

import pytest
import torch

import sparsemend as sm
from sparsemend.packed import read_packed

DIGITS = ("--model", "digits", "--data", "digits")


def test_packed(run, run_json, digits, tmp_path):
    values = run_json("export", *DIGITS, "--out", "net.packed")
    path = tmp_path / "net.packed"
    assert values["size"] == path.stat().st_size
    assert values["error"] < 0.02
    images = digits.test[0][0][:4]
    expected = digits.model(images).detach()
    fast = sm.runtime.load(path, images)
    torch.testing.assert_close(fast(images), expected, rtol=0.05, atol=0.05)
    result = run("export", *DIGITS, "--out", "net.packed", "--dtype", "float32")
    assert result.exit_code == 0
    assert "packed" in result.stdout


def test_the_weights_alone(run_json, digits, tmp_path):
    values = run_json("export", "--model", "digits", "--out", "net.packed", "--dtype", "float32")
    assert values["error"] is None
    model = sm.models.create("digits")
    model.load_state_dict(read_packed(tmp_path / "net.packed").state_dict())
    images = digits.test[0][0][:2]
    assert torch.equal(model.eval()(images), digits.model(images))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--format", "zip"), "unknown format: got 'zip'"),
        (("--dtype", "int4"), "unknown type of values: got 'int4'"),
    ],
)
def test_refused(refused, arguments, text):
    assert text in refused("export", *DIGITS, "--out", "net.packed", *arguments)
