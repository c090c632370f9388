"""Networks of transformers are written as they read themselves."""

from __future__ import annotations

import json

import pytest
import torch
from tests.repairs.networks import conv_bn, images

import sparsemend as sm


def test_save_pretrained(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = transformers.BertModel(config)
    rows = [{"input_ids": [1 + n % 9] * (2 + n % 3), "label": 0} for n in range(24)]
    result = sm.compress(model, rows, 0.5, "erk", repair="variance")
    result.save_pretrained(tmp_path / "sparse")
    again = transformers.BertModel.from_pretrained(tmp_path / "sparse")
    ours, theirs = result.model.state_dict(), again.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    facts = json.loads((tmp_path / "sparse" / "sparsemend.json").read_text())
    assert facts["sparsity"] == result.sparsity


def test_other_networks_are_refused(tmp_path):
    result = sm.compress(conv_bn(), images(16), 0.5, "erk", repair="variance")
    with pytest.raises(sm.SparsemendError, match=r"no save_pretrained: got 'Sequential'"):
        result.save_pretrained(tmp_path / "sparse")
    assert not (tmp_path / "sparse").exists()
