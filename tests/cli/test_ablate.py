import csv

import pytest

import sparsemend as sm

SIZES = ("--calibration-size", 64, "--heldout-size", 64, "--batch-size", 32, "--limit", 100)
DIGITS = ("ablate", "--model", "digits", "--data", "digits", *SIZES, "--repair", "batchnorm")
PROJECTION = (*DIGITS, "--force", "projection", "--from", "lamp", "--sparsity", 0.9)


def test_json(run_json, tmp_path):
    values = run_json(*PROJECTION, "--store", "s.sqlite", "--csv", "a.csv")
    assert values["layers"] == {"digits": ["layer2.0.downsample.0", "layer3.0.downsample.0"]}
    assert (values["cells"], values["computed"], values["failures"]) == (3, 3, [])
    (found,) = values["comparisons"]
    gain = found["forced"]["mean"] - found["base"]["mean"]
    assert found["gain"]["mean"] == pytest.approx(gain)
    records = {r.cell.rule: r for r in sm.SweepResult.load(tmp_path / "s.sqlite").records}
    assert found["base"]["mean"] == records["erk"].recovery("accuracy")
    assert found["source"]["mean"] == records["lamp"].recovery("accuracy")
    with (tmp_path / "a.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 1
    more = run_json(*PROJECTION, "--store", "s.sqlite", "--sparsity", 0.95, "--rule", "uniform")
    assert (more["cells"], more["computed"]) == (6, 5)  # lamp at 0.9 was there


def test_text(run):
    result = run(*PROJECTION, "--store", "s.sqlite")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("digits: lamp's densities instead of erk's in layer2.0.down")
    assert "erk[projection=lamp]" in result.stdout
    assert "forcing raises recovery in " in result.stdout
    assert result.stdout.endswith("wrote s.sqlite\n")


def test_dry_run(run, tmp_path):
    result = run(*PROJECTION, "--store", "s.sqlite", "--csv", "a.csv", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "  digits erk[projection=lamp] magnitude batchnorm at 0.9, seed 0" in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_cells_that_fail(run):
    result = run(*PROJECTION, "--sparsity", 0.9999)
    assert result.exit_code == 1
    assert "forcing raises recovery in " in result.stdout  # at 0.9
    assert "3 cells failed\n  digits erk magnitude batchnorm at 0.9999, seed 0" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--force", "depthwise"), "no layer of the network is meant by this pattern"),
        (("--from", "snip"), "unknown allocation rule: got 'snip'"),
        (("--rule", "snip"), "unknown allocation rule: got 'snip'"),
        (("--sparsity", "half"), "sparsity is neither a number nor a range: got 'half'"),
        (("--csv", "a.txt"), "--csv has another ending: got 'a.txt'"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*PROJECTION, "--store", "s.sqlite", *arguments)


def test_without_sparsity(refused):
    text = refused(*DIGITS, "--force", "fc", "--from", "lamp")
    assert text == "--sparsity is missing; as in --sparsity 0.80:0.98:0.01"
