"""Networks of one block on a residual stream, which is their output: stem, then x + f(norm(x))."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 6


class RMSNorm(nn.Module):
    """A normalisation that PyTorch does not know as one."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)


class PreNorm(nn.Module):
    """x + f(norm(x)), f from ``branch`` on, with whatever comes between its last layer and the sum.

    ``up`` and ``down`` are the layers of f; the sum that is to be corrected is behind ``down``.
    """

    def __init__(self, norm: type[nn.Module] | None = None) -> None:
        super().__init__()
        self.stem = nn.Linear(4, WIDTH)
        self.norm = nn.LayerNorm(WIDTH) if norm is None else norm()
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

    def branch(self, x: Tensor) -> Tensor:
        return self.down(torch.relu(self.up(self.norm(x))))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        return x + self.branch(x)


class Dropped(PreNorm):
    """As transformers end a block in evaluation: dropout, identity, stochastic depth."""

    def __init__(self) -> None:
        super().__init__()
        self.dropout, self.depth = nn.Dropout(0.5), nn.Identity()

    def branch(self, x: Tensor) -> Tensor:
        return self.depth(self.dropout(super().branch(x)))


class Flat(PreNorm):
    """The layer runs on rows of all positions, as in GPT-2."""

    def branch(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.up(self.norm(x)))
        rows = torch.addmm(self.down.bias, hidden.view(-1, 2 * WIDTH), self.down.weight.t())
        return rows.view(x.shape)


class LayerScale(PreNorm):
    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.tensor([0.5, -2.0, 1.0, 0.1, 3.0, 1.0]))

    def branch(self, x: Tensor) -> Tensor:
        return super().branch(x) * self.gamma * 0.5


class InPlace(PreNorm):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        x += self.branch(x)
        return x


class Turned(PreNorm):
    """A ConvNeXt block: linear layers on the last dimension, channels first in the sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(4, WIDTH, 3, padding=1)
        self.depthwise = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, groups=WIDTH)
        self.gamma = nn.Parameter(torch.linspace(-1, 1, WIDTH))

    def branch(self, x: Tensor) -> Tensor:
        y = super().branch(self.depthwise(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return y.mul(self.gamma.reshape(1, -1, 1, 1))


class Parallel(PreNorm):
    """Attention and perceptron side by side; ``inner`` sums these first."""

    def __init__(self, inner: bool) -> None:
        super().__init__()
        self.inner, self.attention = inner, nn.Linear(WIDTH, WIDTH)
        self.dropout, self.gamma = nn.Dropout(0.5), nn.Parameter(torch.linspace(0.5, 2, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        y = self.norm(x)
        attended = self.gamma * self.dropout(self.attention(y.softmax(dim=1)))
        branch = self.down(torch.relu(self.up(y)))
        return x + (attended + branch) if self.inner else x + attended + branch


class Attention(nn.Module):
    """PyTorch's own attention, which hands the positions on first: [T, N, features]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Linear(4, WIDTH), nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.stem(x))
        y = self.norm(x)
        return x + self.attention(y, y, y, need_weights=False)[0]


NETWORKS = {
    "layer norm": PreNorm,
    "own norm": lambda: PreNorm(RMSNorm),
    "dropped": Dropped,
    "flat": Flat,
    "layer scale": LayerScale,
    "in place": InPlace,
    "turned": Turned,
    "parallel": lambda: Parallel(inner=False),
    "parallel, inner": lambda: Parallel(inner=True),
    "attention": Attention,
}


def inputs(kind: str, count: int = 5, seed: int = 0) -> Tensor:
    shape = (4, 3, 3) if kind == "turned" else (7, 4)
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
