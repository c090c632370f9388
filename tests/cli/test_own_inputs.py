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


def test_a_sentence_encoder_with_its_tokenizer(run_json, tmp_path):
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
    for name in ("lines.txt", "lines.csv"):
        values = run_json(*QUICK, "--model", f"hf:{folder}", "--data", tmp_path / name)
        assert values["calibration_size"] == 16
        assert values["sparsity"] == pytest.approx(0.5, abs=1e-3)
