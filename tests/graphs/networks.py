"""Random networks of the operations that graphs know, with a few that they do not."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Identity)


class Residual(nn.Module):
    """A sum of a branch and its input, behind which comes an activation."""

    def __init__(self, branch: nn.Module, after: nn.Module) -> None:
        super().__init__()
        self.branch, self.after = branch, after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(x + self.branch(x))


class Branches(nn.Module):
    """Concatenated branches."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class Gate(nn.Module):
    """Squeeze and excitation: a product that graphs have no operation for."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.linear(x.mean((2, 3), keepdim=True)))


class Flat(nn.Module):
    """Flattened by hand."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], -1)


def sparse_(model: nn.Module, density: float, seed: int = 0) -> nn.Module:
    """Give a network random statistics, and leave a fraction of every matrix; in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            module.weight.data.normal_(generator=generator)
            module.bias.data.normal_(generator=generator)
        elif isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.data
            weight *= torch.rand(weight.shape, generator=generator) < density
    return model.eval()


def random_network(
    seed: int, *, known_only: bool = False, size: tuple[int, int] | None = None
) -> tuple[nn.Module, Tensor]:
    """A network and an input for it.

    Parameters
    ----------
    seed
        Of everything.
    known_only
        Leave out what graphs have no operation for.
    size
        Of the images; random by default.
    """
    draw = random.Random(seed)
    torch.manual_seed(seed)
    channels = draw.choice([1, 3, 4])
    drawn = (draw.randint(5, 17), draw.randint(5, 17))
    x = torch.randn(draw.randint(1, 3), channels, *(size or drawn))
    parts: list[nn.Module] = []

    def activation() -> nn.Module:
        return draw.choice(ACTIVATIONS)()

    def convolution(cin: int, cout: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        groups = draw.choice([1, 1, 1, cin]) if cout % cin == 0 else 1
        dilation = draw.choice([1, 1, 2])
        padding = dilation * (kernel // 2)
        bias = draw.random() < 0.5
        layers: list[nn.Module] = [
            nn.Conv2d(cin, cout, kernel, stride, padding, dilation, groups, bias)
        ]
        if draw.random() < 0.7:
            layers.append(nn.BatchNorm2d(cout))
        return layers

    for _ in range(draw.randint(1, 4)):
        kind = draw.choice(["plain", "residual", "branches", "max", "average", "gate", "norm"])
        if kind == "plain":
            wide = draw.choice([channels, 2 * channels, 5])
            parts += convolution(channels, wide, draw.choice([1, 2, 3, 5]), draw.choice([1, 1, 2]))
            parts.append(activation())
            channels = wide
        elif kind == "residual":
            branch = nn.Sequential(*convolution(channels, channels, 3), activation(),
                                   *convolution(channels, channels, 1))  # fmt: skip
            parts.append(Residual(branch, activation()))
        elif kind == "branches":
            branch = nn.Sequential(*convolution(channels, 3, draw.choice([1, 3])), activation())
            parts.append(Branches(nn.Identity(), branch))
            channels += 3
        elif kind == "max":
            parts.append(nn.MaxPool2d(draw.choice([2, 3]), draw.choice([1, 2]), 1,
                                      ceil_mode=draw.random() < 0.3))  # fmt: skip
        elif kind == "average":
            parts.append(nn.AvgPool2d(2, draw.choice([1, 2]), draw.choice([0, 1]),
                                      count_include_pad=draw.random() < 0.5))  # fmt: skip
        elif kind == "gate" and not known_only:
            parts.append(Gate(channels))
        else:
            parts += [nn.BatchNorm2d(channels), activation()]
        with torch.no_grad():
            shape = nn.Sequential(*parts).eval()(x).shape
        if min(shape[2:]) < 4:
            break
    parts += draw.choice([[nn.AdaptiveAvgPool2d(1), nn.Flatten()], [Flat()], [nn.Flatten(1)]])
    with torch.no_grad():
        features = nn.Sequential(*parts).eval()(x).shape[1]
    parts += [nn.Linear(features, 6), activation(), nn.Linear(6, 4)]
    if draw.random() < 0.3:
        parts.append(nn.Softmax(-1))
    return sparse_(nn.Sequential(*parts), draw.choice([0.1, 0.4, 1.0]), seed), x
