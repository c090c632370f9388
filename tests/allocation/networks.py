"""Layers, weights and damage curves for the allocation tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import torch
from hypothesis import strategies as st
from torch import Tensor

from sparsemend.allocation import Problem
from sparsemend.layers.layer import Layer


def make_layer(name: str, shape: tuple[int, ...], order: int, groups: int = 1) -> Layer:
    kind = "Linear" if len(shape) == 2 else f"Conv{len(shape) - 2}d"
    return Layer(name, kind, shape, groups, shape[0], math.prod(shape[1:]), order)


def make_layers(shapes: Sequence[tuple[int, ...]]) -> tuple[Layer, ...]:
    return tuple(make_layer(f"layer{i}", shape, i) for i, shape in enumerate(shapes))


def flat_layers(weights: Sequence[Tensor]) -> tuple[tuple[Layer, ...], dict[str, Tensor]]:
    """One linear layer of one row for each flat weight tensor."""
    layers = make_layers([(1, len(w)) for w in weights])
    return layers, {
        layer.name: w.reshape(layer.shape) for layer, w in zip(layers, weights, strict=True)
    }


def random_weights(layers: Sequence[Layer], seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        layer.name: torch.randn(layer.shape, generator=generator) / math.sqrt(layer.fan_in)
        for layer in layers
    }


def cifar_resnet18(classes: int = 100, stem: int = 64) -> tuple[Layer, ...]:
    shapes: list[tuple[str, tuple[int, ...]]] = [("conv1", (stem, 3, 3, 3))]
    width = stem
    for stage, channels in enumerate((stem, 2 * stem, 4 * stem, 8 * stem), start=1):
        for block in range(2):
            prefix = f"layer{stage}.{block}"
            shapes.append((f"{prefix}.conv1", (channels, width, 3, 3)))
            shapes.append((f"{prefix}.conv2", (channels, channels, 3, 3)))
            if width != channels:
                shapes.append((f"{prefix}.downsample.0", (channels, width, 1, 1)))
            width = channels
    shapes.append(("fc", (classes, width)))
    return tuple(make_layer(name, shape, i) for i, (name, shape) in enumerate(shapes))


@dataclass(frozen=True)
class Curves:
    layers: Sequence[str]
    densities: np.ndarray
    raw: np.ndarray
    residual: np.ndarray
    rr: np.ndarray
    sensitivities: np.ndarray | None = None


def random_curves(layers: Sequence[Layer], seed: int = 0, points: int = 12) -> Curves:
    """Curves with the shape of real ones: falling to 0 at density 1, RR undefined there."""
    rng = np.random.default_rng(seed)
    densities = np.geomspace(0.01, 1.0, points)
    densities[-1] = 1.0
    raw = rng.uniform(0.5, 2, (len(layers), 1)) * (1 - densities) ** rng.uniform(
        1, 4, (len(layers), 1)
    )
    rr = rng.uniform(0.1, 1.2, (len(layers), points))
    residual = raw * rr
    rr[:, -1] = np.nan
    sensitivities = rng.exponential(size=len(layers))
    names = [layer.name for layer in layers]
    return Curves(names, densities, raw, residual, rr, sensitivities)


def make_moments(layers: Sequence[Layer], seed: int | None = None) -> dict[str, SimpleNamespace]:
    """Second moments of input columns: 1, or random ones."""
    generator = torch.Generator().manual_seed(seed or 0)
    found = {}
    for layer in layers:
        shape = (layer.groups, layer.fan_in)
        drawn = torch.rand(shape, generator=generator) * 4
        found[layer.name] = SimpleNamespace(
            column_square=torch.ones(shape) if seed is None else drawn
        )
    return found


def make_problem(
    layers: Sequence[Layer],
    keep: int,
    weights: Mapping[str, Tensor] | None = None,
    diagnosis: Curves | None = None,
    sparsity: float | None = None,
) -> Problem:
    total = sum(layer.size for layer in layers)
    return Problem(
        tuple(layers),
        {} if weights is None else weights,
        keep,
        1 - keep / total if sparsity is None else sparsity,
        diagnosis,
    )


dimensions = st.integers(1, 12)
shapes = st.one_of(
    st.tuples(dimensions, dimensions),
    st.tuples(dimensions, dimensions, st.integers(1, 3)),
    st.builds(lambda c, d, k: (c, d, k, k), dimensions, dimensions, st.sampled_from((1, 3, 5))),
)
networks = st.lists(shapes, min_size=1, max_size=8).map(make_layers)
