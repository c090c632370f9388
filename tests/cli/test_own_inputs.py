"""From a network and data as they are found to a result: one command each."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.data.test_any_inputs import photos

QUICK = ("compress", "--sparsity", 0.5, "--rule", "erk", "--repair", "variance", "--no-report")


def test_photos_of_mixed_sizes_and_a_file(run, run_json, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make(width):\n"
        "    return nn.Sequential(nn.Conv2d(3, width, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),\n"
        "                         nn.Flatten(), nn.Linear(width, 4))\n"
    )
    source = ("--model", tmp_path / "net.py:make", "--model-arg", "width=5")
    sizes = ("--resize", 12, "--crop", "10x8")
    photos(tmp_path / "photos", 30)
    values = run_json(*QUICK, *source, "--data", tmp_path / "photos", *sizes)
    assert values["calibration_size"] == 20
    assert values["heldout"]
    assert values["top1_dense"] is None
    shown = run(*QUICK, *source, "--data", tmp_path / "photos", *sizes).stdout
    assert "30 inputs: 20 to calibrate with, 10 others to judge on" in shown


@pytest.mark.parametrize(
    ("option", "text"),
    [
        (("--resize", "big"), "--resize is no size: got 'big'"),
        (("--crop", "1x2x3"), "--crop is no size"),
        (("--flip",), "--flip is for images"),
        (("--tokenizer", "nowhere"), "tokenizer"),
    ],
)
def test_bad_options(refused, tmp_path, option, text):
    np.savez(tmp_path / "frames.npz", frames=np.random.default_rng(0).normal(size=(20, 6)))
    source = ("--model", "torch.nn:Linear", "--model-arg", "in_features=6")
    wanted = (*source, "--model-arg", "out_features=3", "--data", tmp_path / "frames.npz")
    assert text in refused(*QUICK, *wanted, *option)


def test_frames(run_json, tmp_path):
    np.savez(tmp_path / "frames.npz", frames=np.random.default_rng(0).normal(size=(20, 6)))
    source = ("--model", "torch.nn:Linear", "--model-arg", "in_features=6")
    wanted = (*source, "--model-arg", "out_features=3", "--data", tmp_path / "frames.npz")
    assert run_json(*QUICK, *wanted)["calibration_size"] == 14


def test_timm_with_its_own_preprocessing(run_json, tmp_path):
    pytest.importorskip("timm")
    source = ("--model", "timm:resnet18", "--model-arg", "pretrained=false")
    small = ("--model-arg", "channels=[8,8,8,8]", "--resize", 40, "--crop", 32)
    values = run_json(*QUICK, *source, *small, "--data", photos(tmp_path / "photos", 30))
    assert values["calibration_size"] == 20
    assert values["sparsity"] == pytest.approx(0.5, abs=1e-4)


def sentence_encoder(tmp_path):
    """Folder of a small one, and a file of lines."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    folder = tmp_path / "encoder"
    folder.mkdir()
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *["a", "photo", "of", "the", "quick", "brown", "fox"],
    ]
    (folder / "vocab.txt").write_text("\n".join(words))
    transformers.BertTokenizerFast(vocab_file=str(folder / "vocab.txt")).save_pretrained(folder)
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    transformers.BertModel(config).save_pretrained(folder)
    lines = [f"a photo of {'the ' * (n % 5)}fox" for n in range(24)]
    (tmp_path / "lines.txt").write_text("\n".join(lines))
    (tmp_path / "lines.csv").write_text("n,text\n" + "\n".join(f"1,{line}" for line in lines))
    return folder, tmp_path / "lines.txt"


def test_a_sentence_encoder_with_its_tokenizer(run_json, tmp_path):
    folder, _ = sentence_encoder(tmp_path)
    for name in ("lines.txt", "lines.csv"):
        values = run_json(*QUICK, "--model", f"hf:{folder}", "--data", tmp_path / name)
        assert values["calibration_size"] == 16
        assert values["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_a_folder_that_transformers_reads(run, run_json, refused, tmp_path):
    folder, lines = sentence_encoder(tmp_path)
    source = (*QUICK, "--model", f"hf:{folder}", "--data", lines)
    assert "holds other files" in refused(*source, "--out", folder)
    assert "--new-biases" in refused(*source, "--out", tmp_path / "sparse", "--new-biases")
    for _ in range(2):  # its own folder is written again
        values = run_json(*source, "--out", tmp_path / "sparse")
    transformers = pytest.importorskip("transformers")
    again = transformers.AutoModel.from_pretrained(tmp_path / "sparse")
    zeros = sum(int((again.get_submodule(name).weight == 0).sum()) for name in values["counts"])
    assert zeros == values["total"] - values["kept"]
    assert values["bytes"] > again.num_parameters()
    assert values["next"] == f"sparsemend bench --model hf:{tmp_path / 'sparse'} --data {lines}"
    result = run(*values["next"].split()[1:], "--seconds", 0.1, "--engine", "pytorch")
    assert result.exit_code == 0, result.stderr


def test_folders_are_for_networks_of_transformers(refused, tmp_path):
    np.savez(tmp_path / "frames.npz", frames=np.random.default_rng(0).normal(size=(20, 6)))
    source = ("--model", "torch.nn:Linear", "--model-arg", "in_features=6")
    wanted = (*source, "--model-arg", "out_features=3", "--data", tmp_path / "frames.npz")
    text = refused(*QUICK, *wanted, "--out", tmp_path / "sparse")
    assert text.startswith("--out has another ending: got ")
    assert "No such file" in refused(*QUICK, *wanted, "--out", tmp_path / "no" / "sparse")


def test_the_next_command_loads_the_same_network(run_json, tmp_path):
    np.savez(tmp_path / "frames.npz", frames=np.random.default_rng(0).normal(size=(20, 6)))
    source = ("--model", "torch.nn:Linear", "--model-arg", "in_features=6")
    wanted = (*source, "--model-arg", "out_features=3", "--data", tmp_path / "frames.npz")
    said = run_json(*QUICK, *wanted, "--out", tmp_path / "s.safetensors")["next"].split()
    assert said[:2] == ["sparsemend", "bench"]
    assert set(map(str, wanted)) | {"--weights", str(tmp_path / "s.safetensors")} == set(said[2:])


def test_a_few_inputs_do_for_every_command(run, tmp_path):
    np.savez(tmp_path / "frames.npz", frames=np.random.default_rng(0).normal(size=(30, 6)))
    source = ("--model", "torch.nn:Linear", "--model-arg", "in_features=6")
    wanted = (*source, "--model-arg", "out_features=3", "--data", tmp_path / "frames.npz")
    grid = ("--sparsity", 0.5, "--rule", "erk", "--repair", "variance")
    for command, said in (
        (("diagnose",), "30 inputs: 30 to calibrate with"),
        (("sweep", *grid), "30 inputs: 20 to calibrate with, 10 others to judge on"),
        (("sweep", *grid, "--dry-run"), "30 inputs: 20 to calibrate with, 10 others to judge on"),
        (("sweep", *grid, "--heldout-size", 0), "30 inputs: 30 to calibrate with, none held out"),
    ):
        result = run(*command, *wanted)
        assert result.exit_code == 0, result.stderr
        assert said in result.stdout.splitlines()
