"""Networks in plain PyTorch, written as people write them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from benchmarks.zoo.subject import Subject, ids, images, noise


class Tagger(nn.Module):
    """A recurrent tagger: a class for every token."""

    def __init__(self, cell: Any, **options: Any) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 16)
        self.rnn = cell(16, 24, batch_first=True, **options)
        width = options.get("proj_size", 24)
        self.head = nn.Linear(2 * width if options.get("bidirectional") else width, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(x))[0])


class CellLoop(nn.Module):
    """A loop over an LSTMCell."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(12, 24), nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        h, c = x.new_zeros(len(x), 24), x.new_zeros(len(x), 24)
        for t in range(x.shape[1]):
            h, c = self.cell(x[:, t], (h, c))
        return self.head(h)


class Translator(nn.Module):
    """nn.Transformer with embeddings."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.transformer = nn.Transformer(32, 4, 2, 2, 64, batch_first=True)
        self.head = nn.Linear(32, 100)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        embedded = self.embedding(source), self.embedding(target)
        return self.head(self.transformer(*embedded, tgt_mask=mask))


class EncoderClassifier(nn.Module):
    """nn.TransformerEncoder, whose evaluation has a path of its own."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        self.encoder, self.head = nn.TransformerEncoder(layer, 2), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(1))


class Attention(nn.Module):
    """MultiheadAttention with keys and values of other widths."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(32, 4, kdim=20, vdim=24, batch_first=True)
        self.head = nn.Linear(32, 5)

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.head(self.attend(query=q, key=k, value=v, need_weights=False)[0].mean(1))


class Pairs(nn.Module):
    """Bilinear forms of two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.bilinear, self.head = nn.Bilinear(10, 12, 16), nn.Linear(16, 4)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        return self.head(torch.tanh(self.bilinear(first, second)))


class Experts(nn.Module):
    """A stack of experts, all of which see every input."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(4, 16, 32) / 4)
        self.down = nn.Parameter(torch.randn(4, 32, 16) / 6)
        self.gate, self.head, self.by = nn.Linear(16, 4), nn.Linear(16, 5), by

    def forward(self, x: Tensor) -> Tensor:
        if self.by == "bmm":
            hidden = torch.bmm(x.unsqueeze(0).expand(4, -1, -1), self.up).relu()
            out = torch.bmm(hidden, self.down)
        elif self.by == "matmul":
            out = (x @ self.up).relu() @ self.down
        else:
            hidden = torch.einsum("nd,edh->enh", x, self.up).relu()
            out = torch.einsum("enh,ehd->end", hidden, self.down)
        return self.head(torch.einsum("ne,end->nd", self.gate(x).softmax(1), out))


class Routed(nn.Module):
    """Experts that see the tokens that are sent to them, some of them none."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(16, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.SiLU(), nn.Linear(32, 16)) for _ in range(4)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        chosen, out = self.gate(x).argmax(1), torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            where = (chosen == number).nonzero().flatten()
            if len(where):
                out.index_add_(0, where, expert(x[where]))
        return self.head(out)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """A U-Net; the stateful one leaves its activations on itself."""

    def __init__(self, *, stateful: bool = False) -> None:
        super().__init__()
        self.down = nn.ModuleList([_block(3, 8), _block(8, 16)])
        self.middle = _block(16, 32)
        self.up = nn.ModuleList([nn.ConvTranspose2d(32, 16, 2, 2), nn.ConvTranspose2d(16, 8, 2, 2)])
        self.join = nn.ModuleList([_block(32, 16), _block(16, 8)])
        self.head, self.stateful = nn.Conv2d(8, 4, 1), stateful
        self.stashed: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        stashed = []
        for down in self.down:
            x = down(x)
            stashed.append(x)
            if self.stateful:
                self.stashed = stashed
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            source = self.stashed if self.stateful else stashed
            x = join(torch.cat([up(x), source.pop()], dim=1))
        return self.head(x)


class Autoencoder(nn.Module):
    """Encoder and decoder; the output is an image."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.ReLU(), nn.Flatten(),
            nn.Linear(16 * 64, 24),
        )  # fmt: skip
        self.decode = nn.Sequential(
            nn.Linear(24, 16 * 64), nn.ReLU(), nn.Unflatten(1, (16, 8, 8)),
            nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(8, 3, 4, 2, 1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))


class WaveNet(nn.Module):
    """Gated dilated convolutions in one dimension, with causal padding."""

    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(1, 16, 1)
        self.gates = nn.ModuleList(nn.Conv1d(16, 32, 2, dilation=2**i) for i in range(4))
        self.skips = nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(4))
        self.head = nn.Conv1d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x, total = self.start(x), torch.zeros((), dtype=x.dtype)
        for gate, skip in zip(self.gates, self.skips, strict=True):
            padded = F.pad(x, (gate.dilation[0], 0))
            a, b = gate(padded).chunk(2, dim=1)
            out = skip(a.tanh() * b.sigmoid())
            total = total + out
            x = x + out
        return self.head(total.relu()).mean(2)


class Volumes(nn.Module):
    """A 3d CNN."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv3d(1, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(8, 16, 3, padding=1, groups=2), nn.BatchNorm3d(16), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3, 4)))


class Checkpointed(nn.Module):
    """Blocks behind activation checkpoints, some modules called by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)) for _ in range(3)
        )
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return self.head(input=x)


class Autocast(nn.Module):
    """Mixed precision inside the forward pass, and weights that are cast by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(16, 32), nn.Linear(32, 32)
        self.third, self.head = nn.Linear(32, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            x = self.second(self.first(x).relu()).relu()
        x = x.float()
        x = F.linear(x, self.third.weight.to(x.dtype), self.third.bias.to(x.dtype))
        return self.head(x)


class Unusual(nn.Module):
    """Operations with ``out``, views of views, a choice that depends on the data."""

    def __init__(self) -> None:
        super().__init__()
        self.packed = nn.Parameter(torch.randn(3 * 16, 16) / 4)
        self.flat = nn.Parameter(torch.randn(16 * 24) / 4)
        self.odd, self.even = nn.Linear(24, 24), nn.Linear(24, 24)
        self.head = nn.Linear(24, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (F.linear(x, w) for w in self.packed.view(3, 16, 16).unbind(0))
        x = q.sigmoid() * k + v
        out = torch.empty(len(x), 24)
        x = torch.mm(x, self.flat.view(16, 24), out=out)
        x = self.odd(x) if float(x.detach().mean()) > 0 else self.even(x)
        x.mul_(2).relu_()
        return self.head(x)


class Normed(nn.Module):
    """Weights that are computed from parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(16, 32))
        self.second = nn.utils.parametrizations.spectral_norm(nn.Linear(32, 32))
        self.head = nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x).relu()).relu())


class Wide(nn.Module):
    """A layer whose second moments would take 16 GiB."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.Conv2d(1, 1024, 1)
        self.wide = nn.Conv2d(1024, 8, (64, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.wide(self.spread(x).relu()).flatten(2).mean(2)


def _generator() -> nn.Module:
    return nn.Sequential(
        nn.ConvTranspose2d(20, 32, 4, 1, 0, bias=False), nn.BatchNorm2d(32), nn.ReLU(True),
        nn.ConvTranspose2d(32, 16, 4, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU(True),
        nn.ConvTranspose2d(16, 3, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip


def _regressor() -> nn.Module:
    return nn.Sequential(
        nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 1)
    )


_ROWS = noise(16)

SUBJECTS: dict[str, Subject] = {
    "LSTM tagger": Subject(lambda: Tagger(nn.LSTM, num_layers=2, bidirectional=True), ids(10)),
    "GRU tagger": Subject(lambda: Tagger(nn.GRU, num_layers=2), ids(10)),
    "RNN tagger": Subject(lambda: Tagger(nn.RNN), ids(10)),
    "LSTM with projections": Subject(lambda: Tagger(nn.LSTM, proj_size=8), ids(10)),
    "LSTMCell loop": Subject(CellLoop, noise(6, 12)),
    "nn.Transformer": Subject(Translator, lambda g, n: (ids(8)(g, n), ids(6)(g, n))),
    "nn.TransformerEncoder": Subject(EncoderClassifier, noise(8, 32)),
    "MultiheadAttention": Subject(
        Attention, lambda g, n: (noise(5, 32)(g, n), noise(7, 20)(g, n), noise(7, 24)(g, n))
    ),
    "Bilinear": Subject(Pairs, lambda g, n: (noise(10)(g, n), noise(12)(g, n))),
    "experts by bmm": Subject(lambda: Experts("bmm"), _ROWS),
    "experts by matmul": Subject(lambda: Experts("matmul"), _ROWS),
    "experts by einsum": Subject(lambda: Experts("einsum"), _ROWS),
    "routed experts": Subject(Routed, _ROWS),
    "U-Net": Subject(UNet, images(32)),
    "stateful U-Net": Subject(lambda: UNet(stateful=True), images(32)),
    "DCGAN generator": Subject(_generator, noise(20, 1, 1)),
    "3d CNN": Subject(Volumes, noise(1, 8, 8, 8)),
    "WaveNet": Subject(WaveNet, noise(1, 64)),
    "autoencoder": Subject(Autoencoder, images(32)),
    "regressor": Subject(_regressor, noise(12)),
    "checkpointed": Subject(Checkpointed, _ROWS),
    "autocast": Subject(Autocast, _ROWS),
    "unusual operations": Subject(Unusual, _ROWS),
    "weight and spectral norm": Subject(Normed, _ROWS),
    "wide convolution": Subject(Wide, noise(1, 64, 4)),
}
