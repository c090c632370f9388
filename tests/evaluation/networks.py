"""Networks whose outputs have every form, and batches for them."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

Heads = namedtuple("Heads", ["scores", "embedding"])


@dataclass
class ModelOutput:
    """As transformers return one."""

    logits: Tensor | None = None
    loss: Tensor | None = None
    hidden: tuple[Tensor, ...] = ()
    ids: Tensor | None = None
    note: str = "text"
    empty: dict[str, Tensor] = field(default_factory=dict)


class Shaped(nn.Module):
    """Two linear layers; a function makes the output of [N, width]."""

    def __init__(self, pack: Callable[[Tensor], Any] = lambda y: y, width: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.head = nn.Linear(10, 16), nn.Linear(16, width)
        self.pack, self.calls = pack, 0

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return self.pack(self.head(self.body(x).relu()))


class Tokens(nn.Module):
    """Class scores of every token, by its number and the mean of all that are no padding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
        found = self.embed(input_ids)
        weight = attention_mask.unsqueeze(2).float()
        mean = (found * weight).sum(dim=1, keepdim=True) / weight.sum(dim=1, keepdim=True)
        states = found + mean
        return {"logits": self.head(states), "token_embeddings": states}


def token_batch(seed: int = 0, padding: int = 19) -> dict[str, Tensor]:
    """Four rows of three to six tokens; what stands at padding positions is one number."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, 19, (4, 6), generator=generator)
    mask = (torch.arange(6) < torch.tensor([[3], [4], [5], [6]])).long()
    return {"input_ids": ids.where(mask == 1, padding), "attention_mask": mask}


def damaged(model: nn.Module, amount: float = 0.3) -> nn.Module:
    """A copy whose weights have moved."""
    other = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter += amount * torch.randn(parameter.shape, generator=generator)
    return other
