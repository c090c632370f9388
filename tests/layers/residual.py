"""A network of two residual blocks: layers that meet in sums, and layers inside of the blocks."""

from __future__ import annotations

import torch
from torch import nn


class Residual(nn.Module):
    """A stem, two blocks with what ``middle`` is between them, and a classifier."""

    def __init__(self, middle: nn.Module | None = None) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.up, self.down = nn.Conv2d(4, 6, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.middle = middle or nn.MaxPool2d(2)
        self.inner, self.outer = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.middle(torch.relu(x + self.down(torch.relu(self.up(x)))))
        x = torch.relu(self.outer(torch.relu(self.inner(x))) + x)
        return self.last(x.mean((2, 3)))
