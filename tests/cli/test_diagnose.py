import numpy as np
import pytest

import sparsemend as sm
from sparsemend.diagnosis import Diagnosis

DIGITS = ("diagnose", "--model", "digits", "--data", "digits", "--calibration-size", 64)


def test_json_is_the_diagnosis(run_json, digits):
    values = run_json(*DIGITS, "--repair", "affine", "--seed", 3, "--batch-size", 64)
    found = Diagnosis.from_dict(values)
    loaded = sm.models.load("digits")
    data = sm.data.load("digits", mean=loaded.mean, std=loaded.std)
    calibration = sm.calibrate(digits.model, data.calibration(64, seed=3))
    expected = sm.diagnose(digits.model, calibration, "affine")
    assert (found.layers, found.repair, found.inputs) == (expected.layers, "affine", 64)
    np.testing.assert_allclose(found.rr, expected.rr, rtol=1e-6)
    np.testing.assert_allclose(found.residual, expected.residual, rtol=1e-6)


def test_layers_are_chosen(run_json, digits):
    values = run_json(*DIGITS, "--include", "first", "--include", "last")
    names = sm.discover(digits.model).names
    assert Diagnosis.from_dict(values).layers == (names[0], names[-1])


@pytest.mark.parametrize("ending", ["json", "npz"])
def test_written_file_feeds_allocate(run, run_json, ending, tmp_path):
    out = tmp_path / f"diagnosis.{ending}"
    result = run(*DIGITS, "--out", out)
    assert result.exit_code == 0
    assert result.stdout.endswith(f"wrote {out}\n")
    assert [file.name for file in tmp_path.iterdir()] == [out.name]
    found = Diagnosis.load(out)
    assert result.stdout.startswith(str(found))
    values = run_json("allocate", "--model", "digits", "--sparsity", 0.9, "--rule", "rr",
                      "--diagnosis", out)  # fmt: skip
    assert list(values["kept"]) == list(found.layers)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--out", "d.txt"), "--out has another ending: got 'd.txt'; allowed: .json or .npz"),
        (("--out", "no/d.json"), "the folder of --out does not exist: got 'no'"),
        (("--repair", "magic", "--out", "d.json"), "unknown repair operator: got 'magic'"),
        (("--mask", "magic"), "unknown mask: got 'magic'; allowed: magnitude, activation"),
        (("--weighting", "magic"), "unknown weighting: got 'magic'; allowed: relative, energy"),
        (("--calibration-size", 2000), "calibration size is larger than the training split"),
        (("--calibration-size", 0), "calibration size is out of range: got 0"),
        (("--seed", -1), "seed is out of range: got -1"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*DIGITS, *arguments)
