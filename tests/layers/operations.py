"""Small networks that multiply with their parameters in ways of their own."""

import copy

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations


class SelfAttention(nn.Module):
    """One operation for queries, keys and values together."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(x, x, x, need_weights=False)[0])


class CrossAttention(nn.Module):
    """Queries of the inputs, keys and values of what is computed from them."""

    def __init__(self):
        super().__init__()
        self.memory = nn.Linear(8, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        memory = torch.tanh(self.memory(x))
        return self.attention(x, memory, memory)[0]


class Apart(nn.Module):
    """Queries, keys and values of three sources."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, bias=False)

    def forward(self, x):
        return self.attention(x, x.flip(1), x.roll(1, 1))[0]


class Conv1D(nn.Module):
    """That of GPT-2: the weight is stored [inputs, outputs]."""

    def __init__(self, outputs, inputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        shape = (*x.shape[:-1], self.weight.shape[1])
        return torch.addmm(self.bias, x.view(-1, x.shape[-1]), self.weight).view(shape)


class GPT(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.proj = Conv1D(12, 6), Conv1D(6, 12)

    def forward(self, x):
        return x + self.proj(F.gelu(self.fc(x)))


class Functional(nn.Module):
    """Weights of modules that never run."""

    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(6, 9), nn.Linear(3, 6, bias=False)

    def forward(self, x):
        q, k, v = F.linear(x, self.qkv.weight, self.qkv.bias).chunk(3, dim=-1)
        return F.linear(torch.softmax(q * k, dim=-1) * v, weight=self.out.weight)


class Slices(nn.Module):
    """Two layers in one parameter."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(12, 5))
        self.b = nn.Parameter(torch.randn(12))
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        gate = torch.sigmoid(F.linear(x, self.w[:8], self.b[:8]))
        return self.head(gate[..., :4] * gate[..., 4:] + F.linear(x, self.w[8:], self.b[8:]))


class Experts(nn.Module):
    """A stack of matrices; every input goes to the expert that its first value names."""

    def __init__(self):
        super().__init__()
        self.experts = nn.Parameter(torch.randn(3, 7, 5))
        self.head = nn.Linear(7, 4)

    def forward(self, x):
        chosen = x[:, 0].long()
        y = x.new_zeros(len(x), 7)
        for e in range(3):
            if (chosen == e).any():
                y[chosen == e] = F.linear(x[chosen == e], self.experts[e])
        return self.head(torch.relu(y))


class Product(nn.Module):
    """Plain products with matrices, stored either way round, of no module."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(5, 7))
        self.turned = nn.Parameter(torch.randn(4, 7))

    def forward(self, x):
        return torch.relu(x @ self.w) @ self.turned.T


class Handmade(nn.Module):
    """A linear layer that adds its bias for itself."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs))
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x):
        return x @ self.weight.T + self.bias


class Same(nn.Conv2d):
    """Pads before it calls, as much as the input needs (TensorFlow's SAME)."""

    def forward(self, x):
        pad = []
        for n, k, s in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-n // s) - 1) * s + k - n, 0)
            pad += [total // 2, total - total // 2]
        return F.conv2d(F.pad(x, pad), self.weight, self.bias, self.stride)


class Standardised(nn.Conv2d):
    """Weight standardisation: the network multiplies with what is computed from the weight."""

    def forward(self, x):
        w = self.weight
        w = (w - w.mean((1, 2, 3), keepdim=True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5)
        return self._conv_forward(x, w, self.bias)


class LowRank(nn.Linear):
    """A matrix with a low-rank update."""

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs)
        self.a = nn.Parameter(torch.randn(2, inputs))
        self.b = nn.Parameter(torch.randn(outputs, 2))

    def forward(self, x):
        return F.linear(x, self.weight + self.b @ self.a, self.bias)


class Sequence(nn.Module):
    """Embedding, layers, and a head that may share the embedding's weight."""

    def __init__(self, tie):
        super().__init__()
        self.embedding, self.fc = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.head = nn.Linear(6, 9, bias=False)
        if tie:
            self.head.weight = self.embedding.weight

    def forward(self, ids):
        return self.head(torch.tanh(self.fc(self.embedding(ids))))


class Autoencoder(nn.Module):
    """Decodes with the encoder's weight, transposed."""

    def __init__(self):
        super().__init__()
        self.encoder, self.middle = nn.Linear(6, 4), nn.Linear(4, 4)

    def forward(self, x):
        h = self.middle(torch.relu(self.encoder(x)))
        return F.linear(h, self.encoder.weight.T)


class Sometimes(nn.Module):
    """Positive inputs take one more layer."""

    def __init__(self):
        super().__init__()
        self.first, self.more, self.last = nn.Linear(5, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x):
        y = torch.relu(self.first(x))
        if x.mean() > 0:
            y = torch.relu(self.more(y))
        return self.last(y)


class Patched(nn.Linear):
    """Its forward is replaced by a function, on the class."""


def _patched_forward(self, x):
    return torch.matmul(x, self.weight.t()).add(self.bias)


Patched.forward = _patched_forward


def convolutions(kind, padding):
    return nn.Sequential(
        kind(3, 6, 3, padding=padding),
        nn.ReLU(),
        kind(6, 8, 3, stride=2, padding=padding),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )


def normalised():
    net = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 4))
    parametrizations.weight_norm(net[0])
    return net


def seeded(make, dtype=torch.float64):
    torch.manual_seed(0)
    return copy.deepcopy(make()).to(dtype).eval()
