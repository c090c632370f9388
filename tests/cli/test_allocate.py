import pytest

import sparsemend as sm
from sparsemend.allocation import kept_total

DIGITS = ("allocate", "--model", "digits", "--sparsity", 0.9)


@pytest.mark.parametrize("rule", ["uniform", "uniform+", "global", "erk", "lamp"])
def test_rules_that_need_no_data(run_json, digits, rule):
    values = run_json(*DIGITS, "--rule", rule)
    expected = sm.allocate(digits.model, 0.9, rule)
    coverage = values.pop("coverage")
    assert values == expected.to_dict()
    assert coverage["covered"] == coverage["matrix"] == expected.total
    assert sum(values["kept"].values()) == kept_total(0.9, sum(values["sizes"].values()))


@pytest.mark.parametrize("rule", ["rr", "rr-density", "sensitivity", "owl"])
def test_rules_that_measure(run_json, rule):
    values = run_json(*DIGITS, "--rule", rule, "--data", "digits", "--calibration-size", 64)
    assert values["rule"] == rule
    assert sum(values["kept"].values()) == kept_total(0.9, sum(values["sizes"].values()))


@pytest.mark.parametrize("rule", ["erk", "rr"])
def test_layers_are_chosen(run_json, digits, rule):
    flags = ("--exclude", "first", "--exclude", "last", "--rule", rule)
    values = run_json(*DIGITS, *flags, "--data", "digits", "--calibration-size", 64)
    names = sm.discover(digits.model).names
    assert set(values["kept"]) == set(names[1:-1])
    assert sum(values["kept"].values()) == kept_total(0.9, sum(values["sizes"].values()))
    chosen = sm.allocate(digits.model, 0.9, "erk", exclude=("first", "last"))
    assert rule != "erk" or values["kept"] == chosen.to_dict()["kept"]


def test_projections_are_found_with_data(run_json, digits):
    values = run_json(*DIGITS, "--include", "projection", "--data", "digits")
    chosen = sm.discover(digits.model, digits.test[0][0], include="projection")
    assert list(values["kept"]) == list(chosen.names)


def test_a_target_needs_inputs(refused):
    text = refused("allocate", "--model", "digits", "--target-size", "10KiB")
    assert text.startswith("target_size needs inputs")
    text = refused("allocate", "--model", "digits")
    assert text.startswith("the budget is not said once: got 'nothing'")


def test_text(run, digits):
    result = run(*DIGITS, "--rule", "erk")
    coverage = sm.discover(digits.model).coverage
    assert result.stdout == f"{sm.allocate(digits.model, 0.9, 'erk')}\n{coverage}\n"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--sparsity", 1), "sparsity is out of range: got 1.0; allowed: a fraction in [0, 1)"),
        (("--sparsity", "nan"), "sparsity is out of range: got nan"),
        (("--sparsity", 0.9999), "the largest feasible sparsity is 0.99"),
        (("--include", "nowhere"), "no layer of the network is meant by this pattern"),
        (("--include", "first", "--exclude", "*"), "no layer is left to prune"),
        (("--rule", "snip"), "unknown allocation rule: got 'snip'"),
        (("--rule", "rr"), "rule 'rr' needs a diagnosis"),
        (("--rule", "rr", "--diagnosis", "no.json"), "there is no diagnosis file: got 'no.json'"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*DIGITS, *arguments)


def test_a_file_that_is_no_diagnosis(refused, tmp_path):
    (tmp_path / "d.json").write_text('{"a": 1}')
    text = refused(*DIGITS, "--rule", "rr", "--diagnosis", "d.json")
    assert text.startswith("diagnosis file 'd.json': this is not a diagnosis")
