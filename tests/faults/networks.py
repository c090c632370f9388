"""Networks that are small, and networks that are wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn


def small_network() -> nn.Sequential:
    """Two convolutions, a BatchNorm and a classifier of five classes, for images [N, 1, 8, 8]."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 6, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 5),
        )
        with torch.no_grad():
            model(torch.randn(16, 1, 8, 8))
        return model.eval()


def edited(edit: Callable[[nn.Module], object]) -> nn.Module:
    """The small network with something wrong."""
    model = small_network()
    with torch.no_grad():
        edit(model)
    return model


class Outer(nn.Module):
    """The small network in a forward pass of one's own."""

    def __init__(self, after: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.after = small_network(), after

    def forward(self, x: Tensor) -> object:
        return self.after(self.inner(x))


def lookup(x: Tensor) -> object:
    return {}[len(x)]


def nan(x: Tensor) -> Tensor:
    return x * math.nan
