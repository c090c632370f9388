import pytest
import torch
from torch import nn

import sparsemend as sm
from sparsemend.models.weights import save_weights

DIGITS = ("evaluate", "--model", "digits", "--data", "digits")


def test_digits(run, run_json, digits):
    expected = sm.evaluate(digits.model, digits.test)
    values = run_json(*DIGITS)
    assert values == {"model": "digits", "top1": expected.top1, "count": 450}
    assert run(*DIGITS).stdout == f"{expected}\n"


def test_limit_takes_the_first(run_json, digits):
    inputs, labels = digits.test[0]
    expected = sm.evaluate(digits.model, [(inputs[:100], labels[:100])])
    values = run_json(*DIGITS, "--limit", 100, "--batch-size", 7)
    assert (values["top1"], values["count"]) == (pytest.approx(expected.top1), 100)


def test_normalisation_comes_from_the_weights_or_the_options(run_json, digits_cache):
    weights = digits_cache / "digits.safetensors"
    values = run_json(*DIGITS, "--weights", weights)
    assert values == run_json(*DIGITS)
    loaded = sm.models.load("digits", weights)
    mean, std = loaded.mean[0], loaded.std[0]
    assert run_json(*DIGITS, "--mean", mean, "--std", std) == values
    assert run_json(*DIGITS, "--mean", 0, "--std", 5)["top1"] < values["top1"] - 0.1


def test_a_model_of_ones_own(run_json, tmp_path):
    (tmp_path / "one_linear.py").write_text(
        "from torch import nn\n"
        "def network(num_classes=10):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_classes))\n"
    )
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    save_weights(tmp_path / "w.safetensors", model.state_dict(), {})
    values = run_json(
        "evaluate",
        "--model",
        "one_linear:network",
        "--data",
        "digits",
        "--weights",
        "w.safetensors",
    )
    expected = sm.evaluate(model, sm.data.load("digits").test_batches())
    assert values["top1"] == pytest.approx(expected.top1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--model", "digit"), "unknown model: got 'digit'"),
        (("--model", "cifar_resnet20"), "has no weights of its own"),
        (("--model", "nowhere:network"), "cannot be imported: ModuleNotFoundError"),
        (("--weights", "none.safetensors"), "weights file 'none.safetensors' does not exist"),
        (("--data", "nowhere"), "data 'nowhere' does not exist"),
        (("--data", "."), "data '.' is an empty folder; allowed: a folder of parquet files"),
        (("--limit", "0"), "limit is out of range: got 0"),
        (("--batch-size", "0"), "--batch-size is too small: got 0; allowed: 1 or more"),
        (("--mean", "a,b"), "--mean is no list of numbers: got 'a,b'; allowed: 0.49,0.48,0.45"),
        (("--mean", "0.1,0.2", "--std", "1,1"), "do not fit the mean and std"),
        (("--device", "abacus"), "--device cannot be used: got 'abacus'"),
        (("--offload", "abacus"), "offload is no device of this machine"),
        (("--offload", "cpu"), "offload is where the network lies already"),
        (("--width", "8"), "model 'digits' is trained in one size"),
    ],
)
def test_bad_input(refused, arguments, text):
    assert text in refused(*DIGITS, *arguments)


def test_cifar10_resnet20(run_json, shared_data):
    values = run_json(
        "evaluate",
        *("--model", "cifar_resnet20"),
        *("--weights", shared_data / "weights/cifar10_resnet20.safetensors"),
        *("--data", shared_data / "cifar10"),
        *("--limit", 500),
    )
    assert values["count"] == 500
    assert 0.90 < values["top1"] < 0.96  # 92.60 % on all 10,000


def test_arguments_of_a_constructor(run_json, refused, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(classes, hidden=8):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.Linear(hidden, classes))"
    )
    model = ("--model", tmp_path / "net.py:make", "--data", "digits", "--limit", 9)
    found = run_json("evaluate", *model, "--model-arg", "classes=10", "--model-arg", "hidden=3")
    assert found["count"] == 9
    assert "--model-arg key=value" in refused("evaluate", *model)
    assert "--model-arg is written wrong: got 'ten'" in refused(
        "evaluate", *model, "--model-arg", "ten"
    )
