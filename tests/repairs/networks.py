"""Small networks for the repair tests, their pruned copies, and what flows through them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.layers import Layer, channel_last, discover

CHANNELWISE = ("none", "mean", "variance", "layerwise", "shrinkage", "affine")
CLASSES = 5
CHANNELS = 4


def randomise(model: nn.Module, seed: int) -> nn.Module:
    """Random biases, affine parameters and running statistics, as after training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm | nn.GroupNorm) and module.weight is not None:
                module.weight.copy_(0.5 + torch.rand(module.weight.shape, generator=generator))
                module.bias.copy_(torch.randn(module.bias.shape, generator=generator) / 2)
            if isinstance(module, _BatchNorm) and module.running_mean is not None:
                shape = module.running_mean.shape
                module.running_mean.copy_(torch.randn(shape, generator=generator) / 4)
                module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))
    return model.eval()


def conv_bn(seed: int = 0, width: int = 6, norms: Sequence[str] = ("batch",)) -> nn.Module:
    """Convolution, norm, ReLU three times, then a classifier; images [N, 4, H, W]."""
    torch.manual_seed(seed)
    sizes = [CHANNELS, width, 2 * width, width]
    blocks: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        norm = norms[index % len(norms)]
        blocks += [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), _norm(norm, outputs)]
        blocks += [nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes[-1], CLASSES)]
    return randomise(nn.Sequential(*blocks, *head), seed)


def perceptron(seed: int = 0, sizes: Sequence[int] = (6, 8, 5)) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers[:-1]).eval()


def _norm(kind: str, channels: int) -> nn.Module:
    known = {"batch": nn.BatchNorm2d, "group": lambda c: nn.GroupNorm(2, c)}
    return known[kind](channels) if kind in known else nn.Identity()


def _convolution(kind: str, inputs: int, outputs: int, bias: bool) -> nn.Module:
    if kind == "transposed":
        return nn.ConvTranspose2d(inputs, outputs, 3, padding=1, groups=2, bias=bias)
    groups = {"grouped": 2, "plain": 1}[kind]
    return nn.Conv2d(inputs, outputs, 3, padding=1, groups=groups, bias=bias)


@st.composite
def networks(draw: st.DrawFn) -> nn.Module:
    """Convolutions of all kinds with and without bias and norm, then a classifier; float64."""
    torch.manual_seed(draw(st.integers(0, 1000)))
    channels, blocks = CHANNELS, []
    for _ in range(draw(st.integers(1, 3))):
        outputs = 2 * draw(st.integers(1, 4))
        kind = draw(st.sampled_from(("plain", "grouped", "transposed")))
        blocks.append(_convolution(kind, channels, outputs, draw(st.booleans())))
        blocks.append(_norm(draw(st.sampled_from(("batch", "group", "none"))), outputs))
        blocks.append(nn.ReLU())
        channels = outputs
    head = [
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels, CLASSES, draw(st.booleans())),
    ]
    return randomise(nn.Sequential(*blocks, *head).double(), draw(st.integers(0, 1000)))


def images(count: int = 24, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, CHANNELS, 5, 5, generator=generator, dtype=dtype) + 0.3


def prune_half(model: nn.Module, fraction: float = 0.5) -> nn.Module:
    """A copy whose smallest weights are zero; no help from the library."""
    pruned = copy.deepcopy(model)
    with torch.no_grad():
        for module in pruned.modules():
            if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
                size = module.weight.numel()
                smallest = module.weight.abs().flatten().argsort()[: int(fraction * size)]
                module.weight.view(-1)[smallest] = 0
    return pruned


def layers_of(model: nn.Module, batch: Any) -> list[Layer]:
    return list(discover(model, batch))


def outputs(model: nn.Module, batches: Sequence[Any]) -> dict[str, list[Tensor]]:
    """Module path of every prunable layer → its outputs [positions, C], one for each call."""
    kinds = nn.Linear | nn.modules.conv._ConvNd
    seen: dict[str, list[Tensor]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, kinds):
            seen[name] = []

            def hook(module: nn.Module, args: Any, output: Tensor, name: str = name) -> None:  # noqa: ARG001
                seen[name].append(channel_last(module, output).double())

            handles.append(module.register_forward_hook(hook))
    with torch.no_grad():
        for batch in batches:
            model(batch)
    for handle in handles:
        handle.remove()
    return seen


def signals(model: nn.Module, layers: Sequence[Layer], batches: Sequence[Any]) -> dict[str, Tensor]:
    """Layer → its output as the rest of the network sees it: minus the running mean behind it."""
    modules: dict[str, Any] = dict(model.named_modules())
    found = {}
    seen = outputs(model, batches)
    for layer in layers:
        z = torch.cat(seen[layer.name])
        norm = modules.get(layer.norm)
        found[layer.name] = z - norm.running_mean if isinstance(norm, _BatchNorm) else z
    return found


def moments(z: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(z.double(), dim=0, correction=0)
    return mean, variance


def same_state(one: nn.Module, other: nn.Module) -> bool:
    """Bit for bit."""
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)
