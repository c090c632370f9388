import json

import pytest
import torch
from safetensors.torch import load_file

import sparsemend as sm
from sparsemend.models.weights import save_weights

SIZES = ("--calibration-size", 96, "--heldout-size", 64, "--batch-size", 48)
DIGITS = ("compress", "--model", "digits", "--data", "digits", "--sparsity", 0.9, *SIZES)
AUTO = (*DIGITS, "--repair", "variance")
VARIANCE = (*AUTO, "--rule", "global")
# Rules that need no more than a diagnosis, which rule auto tries and with which it is compared.
COMPARED = tuple(
    name
    for name, rule in sm.allocation.RULES.items()
    if rule.searched and rule.needs != "sensitivities"
)
KEYS = {
    *("sparsity", "kept", "total", "rule", "mask", "repair", "scope", "kl", "agreement"),
    *("top1_dense", "top1_pruned", "top1_repaired", "seconds", "out", "seed", "calibration_size"),
}


def images(seed):
    """The calibration and held-out batches that the commands draw."""
    loaded = sm.models.load("digits")
    data = sm.data.load("digits", mean=loaded.mean, std=loaded.std)
    unseen = data.heldout(64, calibration_size=96, seed=seed)
    return list(data.calibration(96, seed=seed).split(48)), list(unseen.split(48))


def expected(digits, seed=0, rule="global", **options):
    """The same by hand, from the library."""
    calibration, unseen = images(seed)
    return sm.compress(digits.model, calibration, 0.9, rule, heldout=unseen, **options)


def test_json(run_json, digits, tmp_path):
    out = tmp_path / "s.safetensors"
    options = {"rule": "erk", "mask": "activation", "repair": "affine", "scope": "one-shot"}
    flags = [part for key, value in options.items() for part in (f"--{key}", value)]
    values = run_json(*DIGITS, *flags, "--seed", 5, "--out", out)
    result = expected(digits, seed=5, **options)
    assert values.keys() >= KEYS
    assert values["sparsity"] == result.sparsity
    assert values["kept"] == result.allocation.kept == sum(values["counts"].values())
    assert values["total"] == result.allocation.total
    assert {key: values[key] for key in options} == options
    assert values["kl"] == pytest.approx(result.agreement.kl, rel=1e-6)
    assert values["agreement"] == result.agreement.top1
    assert values["heldout"] is True
    assert values["added_biases"] == []
    assert values["top1_dense"] == sm.evaluate(digits.model, digits.test).top1
    assert values["top1_repaired"] == sm.evaluate(result.model, digits.test).top1
    calibration = sm.calibrate(digits.model, images(5)[0])
    pruned = sm.prune(digits.model, result.allocation, "activation", calibration=calibration)
    assert values["top1_pruned"] == sm.evaluate(pruned, digits.test).top1
    assert all(seconds >= 0 for seconds in values["seconds"].values())
    assert {"allocate", "prune", "repair", "compare"} <= values["seconds"].keys()
    assert (values["out"], values["seed"], values["calibration_size"]) == (str(out), 5, 96)
    torch.testing.assert_close(load_file(out), result.model.state_dict(), rtol=0, atol=0)


def test_a_share_of_the_multiplications(run, digits, tmp_path):
    page, out = tmp_path / "page.html", tmp_path / "c.json"
    flags = ("compress", "--model", "digits", "--data", "digits", *SIZES, "--target-flops", 0.1)
    flags += ("--repair", "variance", "--rule", "erk", "--limit", 50, "--report", page)
    out.write_text(run(*flags, "--json").stdout, encoding="utf-8")
    values = json.loads(out.read_text(encoding="utf-8"))
    assert 0.099 < values["target"]["reached"] == values["kept_multiplications"] <= 0.1
    words = f"at most 0.1 of the multiplications; reached {values['target']['reached']:.6g}"
    assert words in page.read_text(encoding="utf-8")
    (batch, *_), _ = images(0)
    allocated = sm.allocate(digits.model, rule="erk", target_flops=0.1, example=batch)
    assert values["counts"] == dict(allocated)
    allocation = ("allocate", "--model", "digits", "--target-flops", 0.1, "--rule", "erk")
    text = run(*allocation, "--data", "digits").stdout
    assert str(allocated) in text
    assert words in text


def test_layers_are_chosen(run, run_json, digits):
    flags = ("--exclude", "first", "--exclude", "last", "--rule", "erk")
    values = run_json(*AUTO, *flags)
    result = expected(digits, rule="erk", repair="variance", exclude=("first", "last"))
    assert values["counts"] == dict(result.allocation)
    assert set(values["counts"]) == set(sm.discover(digits.model).names[1:-1])
    assert "not chosen" in run(*AUTO, *flags).stdout


def test_checkpoint_evaluates_to_the_same(run_json, tmp_path):
    values = run_json(*VARIANCE, "--rule", "rr", "--out", "s.safetensors")
    files = sorted(file.name for file in tmp_path.iterdir())
    assert files == ["s.html", "s.safetensors"]
    evaluated = run_json(
        "evaluate", "--model", "digits", "--data", "digits", "--weights", "s.safetensors"
    )
    assert evaluated["top1"] == values["top1_repaired"]
    metadata = sm.load_checkpoint(sm.models.create("digits"), tmp_path / "s.safetensors")
    assert (metadata["architecture"], metadata["rule"]) == ("digits", "rr")
    assert (metadata["seed"], metadata["calibration_size"]) == ("0", "96")
    assert json.loads(metadata["counts"]) == values["counts"]


def test_an_allocation_from_a_file(run, run_json, refused, digits, tmp_path):
    flags = ("--model", "digits", "--rule", "erk", "--json", "--sparsity", 0.9)
    (tmp_path / "a.json").write_text(run("allocate", *flags).stdout)
    values = run_json(*AUTO, "--rule", "a.json")
    named = run_json(*AUTO, "--rule", "erk")
    for result in (values, named):
        result.pop("seconds")
    assert values == named
    assert values["counts"] == dict(sm.allocate(digits.model, 0.9, "erk"))
    text = refused(*AUTO, "--rule", "a.json", "--sparsity", 0.8)
    assert text.startswith("the allocation is of another sparsity: got ")


def test_densities_from_a_file(run_json, tmp_path):
    (tmp_path / "d.json").write_text('{"*": 0.1, "last": 1}')
    named = ("--model", "digits", "--data", "digits", "--repair", "none", "--rule", "d.json")
    values = run_json("compress", *named, "--calibration-size", 32, "--limit", 32)
    shares = [kept / values["sizes"][name] for name, kept in values["counts"].items()]
    assert shares[-1] == 1
    assert all(abs(share - 0.1) < 0.01 for share in shares[:-1])


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ('{"rule": "erk"}', "density of 'rule' is out of range: got 'erk'"),
        (None, "there is no allocation file: got 'a.json'"),
        ("{", "the allocation file cannot be read (Expecting property name"),
        ('{"rule": "erk", "kept": 9, "sizes": {"fc": 90}}', "this is no allocation: got "),
        ('{"rule": "erk", "kept": {"no": 1}, "sizes": {"no": 10}}', "lacks layers of the network"),
    ],
)
def test_files_that_are_no_allocation(refused, tmp_path, content, text):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    assert text in refused(*DIGITS, "--rule", "a.json")


def test_text(run, digits):
    result = run(*VARIANCE, "--out", "s.safetensors")
    assert result.exit_code == 0
    assert result.stderr == ""
    by_hand = expected(digits, repair="variance")
    assert result.stdout.startswith(str(by_hand))
    lines = {
        line[:17].strip(): line[17:] for line in result.stdout.partition("\n\n")[2].splitlines()
    }
    for model in (digits.model, by_hand.model):
        top1 = 100 * sm.evaluate(model, digits.test).top1
        assert f"{top1:.2f}" in lines["top-1"]
    assert lines["file"].startswith("s.safetensors, ")
    assert lines["report"] == "s.html"
    assert lines["next"].startswith("sparsemend evaluate --model digits --weights s.safetensors")


def auto(digits, budget):
    calibration, unseen = images(0)
    return sm.compress(
        digits.model, calibration, 0.9, repair="variance", heldout=unseen, budget=budget
    )


def test_auto_explains_itself(run, digits):
    result = run(*AUTO, "--budget", 8)
    assert result.exit_code == 0
    assert result.stderr == ""
    search = auto(digits, 8).search
    assert str(search) in result.stdout
    for rule in COMPARED:
        assert f"\n{rule} " in result.stdout
    for layer in search.allocation:
        assert f"\n{layer} " in result.stdout


def test_auto_in_json(run_json, digits):
    values = run_json(*AUTO, "--budget", "8")
    by_hand = auto(digits, 8)
    found, expected = values["search"], by_hand.search.to_dict()
    assert values["rule"] == "auto"
    assert found.keys() == expected.keys()
    # Everything but the time it took.
    for part in (found, expected, *found["trials"], *expected["trials"]):
        assert part.pop("seconds") >= 0
    assert found == expected
    assert values["counts"] == dict(by_hand.allocation)
    assert set(found["plain"]) == set(COMPARED)
    assert run_json(*VARIANCE, "--rule", "erk")["search"] is None


def test_a_report_of_auto_shows_every_rule(run_json, tmp_path):
    run_json(*AUTO, "--budget", 1, "--report", "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert all(rule in text for rule in ("auto", *COMPARED))


def test_a_bad_budget_is_refused_before_any_work(refused, monkeypatch):
    monkeypatch.setattr(sm.models, "load", lambda *_, **__: pytest.fail("it was loaded"))
    text = refused(*AUTO, "--budget", "soon", "--out", "s.safetensors")
    assert text == (
        "the search budget is not understood: got 'soon'; allowed: "
        "a positive number of repairs, such as 40, or a time, such as '20min'"
    )


def test_limit_applies_to_all_three_accuracies(run_json):
    values = run_json(*VARIANCE, "--limit", 3)
    assert all(values[f"top1_{x}"] * 3 in (0, 1, 2, 3) for x in ("dense", "pruned", "repaired"))
    assert values["out"] is None


def test_the_report_shows_every_rule_beside_the_chosen_one(run_json, tmp_path):
    values = run_json(*VARIANCE, "--rule", "rr", "--report", "r.html")
    assert values["out"] is None
    assert values["report"] == "r.html"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    for part in ("before-and-after", "allocations", "repairability", *COMPARED):
        assert part in text
    assert f"{100 * values['top1_repaired']:.3g}" in text
    (tmp_path / "c.json").write_text(json.dumps(values))  # and from the printed values
    shown = run_json("report", "c.json")
    assert {"before-and-after", "allocations"} <= set(shown["figures"])


# As in MobileNetV2, the classifier holds a third of the weights: uniform+ keeps a fifth of them.
WIDE = """
import torch
from torch import nn
def network():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 64, 3), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 100)).eval()
"""
# A residual branch that died, or was initialised to zero: its RR is not defined.
DEAD = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3, padding=1)
        self.c = nn.Linear(16, 10)
        nn.init.zeros_(self.b.weight)
    def forward(self, x):
        x = self.a(x).relu()
        return self.c((x + self.b(x)).relu().mean((2, 3)))
def network():
    torch.manual_seed(0)
    return Net().eval()
"""


@pytest.mark.parametrize(
    ("name", "code", "sparsity", "flags", "left_out"),
    [
        ("wide_classifier", WIDE, 0.9, ("--rule", "erk"), "uniform+"),
        ("dead_branch", DEAD, 0.5, ("--rule", "rr"), "rr-density"),
        ("dead_branch", DEAD, 0.5, ("--rule", "auto", "--budget", 6), "rr-density"),
    ],
)
def test_a_report_leaves_out_rules_that_refuse(
    run_json, tmp_path, name, code, sparsity, flags, left_out
):
    (tmp_path / f"{name}.py").write_text(code)
    values = run_json(
        *("compress", "--model", f"{name}:network", "--data", "digits", *SIZES),
        *("--sparsity", sparsity, *flags, "--repair", "variance", "--out", "s.safetensors"),
    )
    assert (tmp_path / values["out"]).exists()
    text = (tmp_path / values["report"]).read_text(encoding="utf-8")
    columns = {rule: f"\n{rule}," in text for rule in ("uniform", "lamp", left_out)}
    assert columns == {"uniform": True, "lamp": True, left_out: False}


def test_without_a_report(run, run_json, tmp_path):
    values = run_json(*VARIANCE, "--out", "s.safetensors", "--no-report")
    assert values["report"] is None
    assert [file.name for file in tmp_path.iterdir()] == ["s.safetensors"]
    result = run(*VARIANCE, "--out", "t.safetensors", "--no-report")
    assert "t.safetensors" in result.stdout
    assert "report" not in result.stdout
    assert run_json(*VARIANCE)["report"] is None  # nothing is written unless asked for


def test_without_heldout_images(run_json):
    values = run_json(*VARIANCE, "--heldout-size", 0)
    assert values["heldout"] is False


def test_data_without_labels(run_json, tmp_path):
    torch.manual_seed(0)
    arrays = {"x_train": torch.rand(200, 1, 8, 8), "x_test": torch.rand(20, 1, 8, 8)}
    save_weights(tmp_path / "images.safetensors", arrays, {})
    values = run_json(*VARIANCE, "--data", "images.safetensors")
    assert {values[f"top1_{stage}"] for stage in ("dense", "pruned", "repaired")} == {None}
    assert values["kl"] > 0


def test_options_for_mean_and_std_are_in_the_checkpoint(run_json, tmp_path):
    # Weights without metadata: a later evaluation needs the normalisation from the checkpoint.
    save_weights(tmp_path / "plain.safetensors", sm.models.load("digits").model.state_dict(), {})
    values = run_json(
        *VARIANCE,
        *("--weights", "plain.safetensors", "--mean", 0.3, "--std", 0.4),
        *("--out", "s.safetensors"),
    )
    loaded = sm.models.load("digits", tmp_path / "s.safetensors")
    assert (loaded.mean, loaded.std) == ((0.3,), (0.4,))
    evaluated = run_json(
        "evaluate", "--model", "digits", "--data", "digits", "--weights", "s.safetensors"
    )
    assert evaluated["top1"] == values["top1_repaired"]


def test_compressing_a_network_that_got_biases(run_json, tmp_path):
    (tmp_path / "no_biases.py").write_text(
        "from torch import nn\n"
        "def network():\n"
        "    layers = [nn.Conv2d(1, 8, 3, bias=False), nn.ReLU(), nn.Flatten()]\n"
        "    return nn.Sequential(*layers, nn.Linear(288, 10, bias=False))\n"
    )
    command = ("compress", "--model", "no_biases:network", "--data", "digits", *SIZES)
    mean = ("--sparsity", 0.5, "--repair", "mean", "--out", "a.safetensors")
    plain = run_json(*command, *mean)
    assert (plain["added_biases"], plain["unshifted"]) == ([], ["0", "3"])
    first = run_json(*command, *mean, "--new-biases")
    assert (first["added_biases"], first["unshifted"]) == (["0", "3"], [])
    again = ("--weights", "a.safetensors", "--sparsity", 0.7, "--out", "b.safetensors")
    second = run_json(*command, *again, "--repair", "variance")
    assert second["added_biases"] == []
    evaluated = run_json(
        *("evaluate", "--model", "no_biases:network", "--data", "digits"),
        *("--weights", "b.safetensors"),
    )
    assert evaluated["top1"] == second["top1_repaired"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--sparsity", 1.5), "sparsity is out of range: got 1.5"),
        (("--sparsity", -0.1), "sparsity is out of range: got -0.1"),
        (("--sparsity", 0.9999), "the largest feasible sparsity is 0.99"),
        (("--rule", "snip"), "unknown allocation rule: got 'snip'; allowed: 'uniform'"),
        (("--mask", "random"), "unknown mask: got 'random'; allowed: magnitude, activation"),
        (("--repair", "magic"), "unknown repair: got 'magic'; allowed: "),
        (("--scope", "both"), "unknown repair scope: got 'both'; allowed: sequential, one-shot"),
        (("--limit", 0), "limit is out of range: got 0"),
        (("--calibration-size", 1300), "would overlap the calibration images"),
        (("--heldout-size", -1), "held-out size is out of range: got -1"),
        (("--data", "nowhere"), "data 'nowhere' does not exist"),
        (("--weights", "no.safetensors"), "weights file 'no.safetensors' does not exist"),
        (("--out", "s.pt"), "--out has another ending: got 's.pt'; allowed: .safetensors"),
        (("--out", "no/s.safetensors"), "the folder of --out does not exist: got 'no'"),
        (("--report", "r.pdf"), "--report has another ending: got 'r.pdf'; allowed: .html"),
        (("--report", "no/r.html"), "the folder of --report does not exist: got 'no'"),
        (("--report", "r.html", "--no-report"), "--report and --no-report contradict each other"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*VARIANCE, "--out", "s.safetensors", *arguments)


def test_images_that_do_not_fit_the_network(refused, tmp_path):
    arrays = {"x_train": torch.rand(200, 3, 8, 8), "x_test": torch.rand(20, 3, 8, 8)}
    save_weights(tmp_path / "images.safetensors", arrays, {})
    text = refused(*VARIANCE, "--data", "images.safetensors")
    assert "do not fit the mean and std: got '3 channels'" in text
    save_weights(tmp_path / "plain.safetensors", sm.models.load("digits").model.state_dict(), {})
    text = refused(*VARIANCE, "--data", "images.safetensors", "--weights", "plain.safetensors")
    assert text.startswith("the network cannot run on this batch")
