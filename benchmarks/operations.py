"""Multiply-adds that a calibration and a diagnosis need, by the formulas of docs/diagnosis-cost.md.

python -m benchmarks.operations --network vgg16_bn --images 256

Counts only; nothing is timed. Convolutions and linear layers without groups.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import torch
from torch import nn

import sparsemend as sm
from sparsemend.calibration import DEFAULT_DENSITIES
from sparsemend.calibration.choice import choose_way
from sparsemend.calibration.held import can_hold
from sparsemend.calibration.taps import Family, families
from sparsemend.calibration.whole_map import frequency_count
from sparsemend.execution.batches import evaluation_mode
from sparsemend.layers import Axis, Layer, count_positions, kind_of

KINDS = (
    "forward",
    "moments, unfolded",
    "products",
    "transforms",
    "borders",
    "curves, dense products",
    "curves",
)


def operations(model: nn.Module, images: int, batch_size: int) -> dict[str, float]:
    """Counts in 10⁹ multiply-adds for so many images of 32 × 32."""
    counts = dict.fromkeys(KINDS, 0.0)
    x = torch.randn(2, 3, 32, 32)
    layers = sm.discover(model, x)
    modules: dict[str, Any] = dict(model.named_modules())

    def count(layer: Layer, module: Any, one: torch.Tensor) -> None:
        positions = images * count_positions(module, one[:1])
        d, rows = layer.fan_in, layer.rows
        counts["forward"] += positions * d * rows
        counts["moments, unfolded"] += positions * d * d
        counts["curves, dense products"] += len(DEFAULT_DENSITIES) * d * d * rows
        axes = kind_of(module).offset_axes(module, tuple(one.shape)) or ()
        if can_hold(module, layer) and positions <= d:
            seen = [
                sum(len(axis.taps_with_data(p)) for p in range(axis.positions)) for axis in axes
            ]
            channels = one.shape[1]
            counts["curves"] += images * rows * channels * math.prod(seen)
            return
        counts["curves"] += d * d * rows
        shape = (batch_size, *one.shape[1:])
        way = choose_way(module, shape)
        if way == "unfolding":
            counts["products"] += positions * d * d
            return
        found = families(axes, whole=way == "whole maps")
        boxes = images * one.shape[1] ** 2 * _volume(found)
        if way == "offsets":
            counts["products"] += boxes
            return
        counts["borders"] += boxes
        offsets = tuple(family.offset for family in found)
        frequencies = frequency_count(axes, offsets)
        counts["products"] += 2 * images * frequencies * one.shape[1] ** 2
        counts["transforms"] += images * one[0].numel() * _transforms(axes, frequencies)

    handles = [
        modules[layer.name].register_forward_pre_hook(
            lambda module, args, layer=layer: count(layer, module, args[0])
        )
        for layer in layers
    ]
    with evaluation_mode(model):
        model(x)
    for handle in handles:
        handle.remove()
    return {name: value / 1e9 for name, value in counts.items()}


def _volume(found: tuple[Family, ...]) -> int:
    return sum(
        math.prod(stop - start for start, stop in box) for family in found for box in family.boxes
    )


def _transforms(axes: tuple[Axis, ...], frequencies: int) -> float:
    """Multiply-adds for one element: along the last axis, then over the others."""
    last = axes[-1]
    half = (last.size + last.dilation * (last.kernel - 1)) // 2 + 1
    return 2 * half + 4 * frequencies / last.size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    model = sm.models.create(options.network, num_classes=100).eval()
    for name, value in operations(model, options.images, options.batch_size).items():
        print(f"{name:<24} {value:8.1f}")


if __name__ == "__main__":
    main()
