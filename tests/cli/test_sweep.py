import csv
import json

import pytest

import sparsemend as sm

SIZES = ("--calibration-size", 64, "--heldout-size", 64, "--batch-size", 32, "--limit", 100)
DIGITS = ("sweep", "--model", "digits", "--data", "digits", *SIZES)
GRID = (*DIGITS, "--rule", "erk", "--rule", "rr", "--repair", "mean", "--sparsity", "0.8:0.9:0.05")


def test_json_is_what_the_library_finds(run_json, digits, tmp_path):
    values = run_json(*GRID, "--seed", 1, "--seed", 2, "--store", "s.sqlite", "--csv", "s.csv")
    images = sm.data.load(
        "digits", mean=sm.models.load("digits").mean, std=sm.models.load("digits").std
    )
    result = sm.sweep(
        {"digits": digits.model}, images, [0.8, 0.85, 0.9], rules=["erk", "rr"], repairs="mean",
        seeds=[1, 2], calibration_size=64, heldout_size=64, batch_size=32, limit=100,
    )  # fmt: skip
    assert (values["cells"], values["computed"]) == (12, 12)
    assert values["pending"] == values["failures"] == []
    for found, expected in zip(values["transitions"], result.transitions(), strict=True):
        assert (found["network"], found["rule"]) == (expected.network, expected.rule)
        assert found["midpoint"] == vars(expected.midpoint)
    stored = sm.SweepResult.load(tmp_path / "s.sqlite").records
    assert [r.cell for r in stored] == [r.cell for r in result.records]
    assert [r.kl for r in stored] == pytest.approx([r.kl for r in result.records])
    with (tmp_path / "s.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == 12
    again = run_json(*GRID, "--seed", 1, "--seed", 2, "--store", "s.sqlite")
    assert (again["cells"], again["computed"]) == (12, 0)
    assert again["transitions"] == values["transitions"]
    assert sorted(f.name for f in tmp_path.iterdir()) == ["s.csv", "s.sqlite"]


def test_text(run):
    result = run(*GRID, "--store", "s.sqlite", "--csv", "s.csv")
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.startswith("6 cells\n")
    assert "midpoint" in result.stdout
    assert (
        "\nleading rule by accuracy (recovery ahead of the next by up to)\n  digits magnitude "
        in result.stdout
    )
    assert result.stdout.endswith("wrote s.csv\nwrote s.sqlite\n")


def test_layers_are_chosen(run_json, digits, tmp_path):
    flags = ("--sparsity", 0.8, "--rule", "erk", "--repair", "mean", "--store", "s.sqlite")
    (tmp_path / "c.toml").write_text('exclude = ["last", "first"]')
    for more in (("--exclude", "first", "--exclude", "last"), ("--config", "c.toml")):
        values = run_json(*DIGITS, *flags, *more)
        assert values["cells"] == 1
    assert values["computed"] == 0  # the order of names does not matter
    assert run_json(*DIGITS, *flags)["computed"] == 1
    [record] = sm.SweepResult.load("s.sqlite", exclude=("first", "last")).records
    assert set(record.densities) == set(sm.discover(digits.model).names[1:-1])
    assert record.settings.include == ()


def test_dry_run(run, run_json, tmp_path):
    result = run(*GRID, "--store", "s.sqlite", "--csv", "s.csv", "--dry-run")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0].startswith("0 cells are done, 6 to do: 6 cells unlike any in the store")
    assert "  digits erk magnitude mean at 0.85, seed 0" in lines
    assert list(tmp_path.iterdir()) == []
    run_json(*GRID, "--store", "s.sqlite", "--sparsity", 0.8)
    values = run_json(*GRID, "--store", "s.sqlite", "--sparsity", 0.99, "--dry-run")
    assert (values["cells"], len(values["pending"])) == (6, 2)
    assert values["estimate"]["unknown"] == 0
    assert values["estimate"]["seconds"] > 0


def test_cells_that_fail_are_named_and_the_exit_code_says_so(run):
    result = run(*GRID, "--sparsity", 0.9999, "--json")
    assert result.exit_code == 1
    values = json.loads(result.stdout)
    assert values["cells"] == 6
    assert [failure["sparsity"] for failure in values["failures"]] == [0.9999] * 2
    text = run(*GRID, "--sparsity", 0.9999)
    assert text.exit_code == 1
    assert (
        "2 cells failed\n  digits erk magnitude mean at 0.9999, seed 0 and 1 more: " in text.stdout
    )


def test_a_file_and_flags_over_it(run_json, tmp_path):
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "sweep.toml").write_text(
        'model = "digits"\ndata = "digits"\nrule = ["erk", "lamp"]\nrepair = "mean"\n'
        'sparsity = ["0.80:0.90:0.05", 0.95]\nseed = [3]\nstore = "s.sqlite"\n'
        "calibration-size = 64\nheldout-size = 64\nbatch-size = 32\nlimit = 100\n"
    )
    values = run_json("sweep", "--config", "there/sweep.toml")
    assert values["cells"] == 8
    records = sm.SweepResult.load(folder / "s.sqlite").records  # beside the file
    assert {record.cell.sparsity for record in records} == {0.8, 0.85, 0.9, 0.95}
    assert {record.cell.seed for record in records} == {3}
    flags = ("--rule", "lamp", "--sparsity", 0.8, "--store", folder / "s.sqlite")
    values = run_json("sweep", "--config", "there/sweep.toml", *flags)
    assert (values["cells"], values["computed"]) == (1, 0)


def test_several_networks(run_json, tmp_path, digits_cache):
    weights = digits_cache / "digits.safetensors"
    (tmp_path / "sweep.toml").write_text(
        'sparsity = 0.9\nrepair = "mean"\ncalibration_size = 64\nheldout_size = 64\nlimit = 100\n'
        '[[network]]\nname = "one"\nmodel = "digits"\ndata = "digits"\n'
        f'[[network]]\nmodel = "digits"\nweights = "{weights}"\ndata = "digits"\n'
        "mean = [0.1]\nstd = [0.5]\n"
    )
    values = run_json("sweep", "--config", "sweep.toml")
    assert list(dict.fromkeys(t["network"] for t in values["transitions"])) == ["one", "digits"]


def test_two_workers(run_json):
    one, two = (run_json(*GRID, "--workers", count) for count in (1, 2))
    assert two["cells"] == 6
    assert [t["rule"] for t in one["transitions"]] == [t["rule"] for t in two["transitions"]]


NETWORK = '[[network]]\nmodel = "digits"\ndata = "digits"\n'


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("rule = [", "cannot be read (no TOML: Invalid value"),
        (f"rule = {'[' * 100_000}", "cannot be read (no TOML: maximum recursion depth"),
        ('rul = "erk"', "unknown key in 'c.toml': got 'rul'; allowed: rule, "),
        ('rul = "erk"', "did you mean 'rule'?"),
        ("rule = 3", "key 'rule' in 'c.toml' is written wrong: got 3; allowed: a text"),
        ("seed = [0.5]", "key 'seed' in 'c.toml' is written wrong: got ['0.5']; allowed: a whole"),
        ("limit = true", "key 'limit' in 'c.toml' is written wrong: got True"),
        ("sparsity = [[0.1]]", "allowed: a number, or a range such as '0.80:0.98:0.01'"),
        ("network = 3", "networks are written wrong: got 3; allowed: [[network]] tables"),
        (f'model = "digits"\n{NETWORK}', "unknown key in 'c.toml': got 'model'"),
        (f"{NETWORK}speed = 9\n", "unknown key in 'c.toml': got 'speed'"),
        ('[[network]]\nmodel = "digits"\n', "--data is missing; pass --data or --config"),
        (NETWORK, "--sparsity is missing; as in --sparsity 0.80:0.98:0.01"),
        (f"sparsity = 0.9\n{NETWORK}{NETWORK}", "two networks have the same name: got 'digits'"),
    ],
)
def test_files_that_are_wrong(refused, tmp_path, content, text):
    (tmp_path / "c.toml").write_text(content)
    assert text in refused("sweep", "--config", "c.toml")


def test_flags_for_one_network_do_not_go_with_several(refused, tmp_path):
    (tmp_path / "c.toml").write_text(f"sparsity = 0.9\n{NETWORK}{NETWORK}")
    text = refused("sweep", "--config", "c.toml", "--weights", "w.safetensors")
    assert text.startswith(
        "--weights is for one network, and 'c.toml' has: got ['digits', 'digits']"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--config", "none.toml"), "there is no configuration file: got 'none.toml'"),
        (("--sparsity", "0.8-0.9"), "sparsity is neither a number nor a range: got '0.8-0.9'"),
        (("--sparsity", "1.0"), "sparsity is out of range: got 1.0"),
        (("--rule", "snip"), "unknown allocation rule: got 'snip'"),
        (("--mask", "gradual"), "mask 'gradual' is chosen jointly"),
        (("--repair", "magic"), "unknown repair: got 'magic'"),
        (("--scope", "both"), "unknown repair scope: got 'both'"),
        (("--seed", -1), "seed is out of range: got -1"),
        (("--limit", 0), "limit is out of range: got 0"),
        (("--heldout-size", -1), "heldout_size is out of range: got -1"),
        (("--workers", 0), "workers is out of range: got 0"),
        (("--workers", 2, "--ray", "auto"), "workers and ray exclude each other"),
        (("--csv", "s.txt"), "--csv has another ending: got 's.txt'; allowed: .csv"),
        (("--store", "none/s.sqlite"), "the store cannot be there: got 'none/s.sqlite'"),
        (("--data", "nowhere"), "data 'nowhere' does not exist"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*GRID, "--store", "s.sqlite", *arguments)


def test_without_a_network(refused):
    assert refused("sweep", "--sparsity", 0.9) == "--model is missing; pass --model or --config"


def test_targets(run_json, run):
    flags = ("--rule", "erk", "--repair", "mean", "--store", "s.sqlite")
    values = run_json(*DIGITS, *flags, "--target-flops", 0.2, "--target-flops", "0.10")
    assert (values["cells"], values["transitions"]) == (2, [])
    records = sm.SweepResult.load("s.sqlite").records
    assert [record.cell.target for record in records] == ["flops 0.1", "flops 0.2"]
    result = run(*DIGITS, *flags, "--target-flops", 0.2, "--sparsity", 0.9)
    assert result.exit_code == 2
    assert "budgets of several kinds do not go into one sweep" in result.stderr
