"""A small decoder with a pre-norm residual stream, trained here on Python's own documentation.

Characters of the help texts that come with Python (``pydoc_data.topics``), the last tenth of them
for perplexity. Trained once, in about three minutes on a core, and kept in the file that
``--weights`` names.
"""

from __future__ import annotations

from pathlib import Path
from pydoc_data import topics

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import sparsemend as sm
from benchmarks.peers._problem import Figure, Problem

NAME = "decoder"
LENGTH, BATCH = 128, 32
STEPS, RATE, WARMING = 300, 3e-3, 30


class Block(nn.Module):
    """x + attention(norm(x)), then x + perceptron(norm(x))."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        q, k, v = (
            layer(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).flatten(2))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Decoder(nn.Module):
    """Logits [N, T, characters] of the next character."""

    def __init__(self, characters: int, width: int = 128, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(characters, width), nn.Embedding(LENGTH, width)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, characters, bias=False)
        for embedding in (self.token, self.place):
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.token(ids) + self.place.weight[: ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(self.norm(x))
        return logits


def read_text() -> tuple[Tensor, Tensor, int]:
    """Characters to learn from, those to be judged on, and how many there are."""
    text = "\n".join(topics.topics[name] for name in sorted(topics.topics))
    letters = {letter: number for number, letter in enumerate(sorted(set(text)))}
    ids = torch.tensor([letters[letter] for letter in text])
    cut = len(ids) * 9 // 10
    return ids[:cut], ids[cut:], len(letters)


def train(model: nn.Module, ids: Tensor, steps: int = STEPS, seed: int = 0) -> None:
    """Train in place: AdamW, warming up and then cosine decay."""
    weights = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [{"params": weights, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95))
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.02, total_iters=WARMING)
    cool = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps - WARMING))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, cool], [WARMING])
    crops = sm.data.token_crops(ids, LENGTH, steps * BATCH, seed=seed).split(BATCH)
    model.train()
    for batch in crops:
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    model.eval()


def load(weights: Path, calibration_size: int, seed: int) -> Problem:
    """The decoder, pieces of the text that it has learnt, and the rest of it."""
    learnt, rest, characters = read_text()
    torch.manual_seed(0)
    dense = Decoder(characters).eval()
    if weights.exists():
        dense.load_state_dict(load_file(weights))
    else:
        train(dense, learnt)
        save_file(dense.state_dict(), weights)
    inputs = list(sm.data.token_crops(learnt, LENGTH, calibration_size, seed=seed).split(32))
    heldout = list(rest[: len(rest) // LENGTH * LENGTH].reshape(-1, LENGTH).split(32))

    def measure(model: nn.Module) -> dict[str, float]:
        return {
            "perplexity": float(sm.perplexity(model, heldout, progress=False)),
            "kl": sm.agreement(model, dense, heldout, judge="kl").kl,
        }

    figures = {
        "perplexity": Figure("perplexity", "{:.2f}".format),
        "kl": Figure("KL", "{:.3f}".format),
    }
    methods = ("magnitude", "wanda", "sparsegpt", "alps", "reconstruct-alone", "reconstruct")
    return Problem(dense, inputs, heldout, "uniform", figures, measure, methods, ("last",))
