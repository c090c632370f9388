"""How a layer's moments are accumulated: whatever is estimated to cost least.

Costs are in multiply-adds of a matrix product. Copying one element into a new layout counts as
``_COPY`` of them, and calling a product as ``_CALL``, or on an accelerator, which is far faster but
gets its calls no sooner, as ``_LAUNCH``; a product of narrow matrices runs as if it were
``_NARROW`` wide. Per output position, with C channels, a kernel of k taps and d = C k:

- unfolding: d² for the product, d copied elements;
- offset blocks: C² per different offset (fewer where borders shorten a sum), about C copied
  elements, and a call for every box of every offset in every chunk;
- whole maps: 2 C² per frequency, of which there are about half as many as positions, the
  transforms, and offset blocks of the lines that pairs of taps lack at the borders.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

from sparsemend.calibration.offset_blocks import NARROW, images_per_chunk
from sparsemend.calibration.taps import Family, families, sees_most
from sparsemend.calibration.whole_map import frequency_count
from sparsemend.layers import Axis, kind_of

Way = Literal["whole maps", "offsets", "unfolding"]

_CPU = torch.device("cpu")
_COPY = 32
_UNFOLD = 64
_CALL = 450_000
# About 7 µs at 20 · 10¹² multiply-adds a second: of data sheets, not measured.
_LAUNCH = 150_000_000
_NARROW = 16
# The products of the transforms have short inner dimensions.
_TRANSFORM = 1.5
# Elements of the frequencies' C × C products of one batch: 128 MiB in float32.
_MOST_SPECTRUM = 1 << 25
# Offsets of larger kernels are too many to list, and cost more than unfolding few channels.
_MOST_TAPS = 64


def choose_way(module: nn.Module, shape: tuple[int, ...], device: torch.device = _CPU) -> Way:
    """Choose how to accumulate the moments of a layer.

    Parameters
    ----------
    module
        The layer's module.
    shape
        Of its input.
    device
        Where that is.
    """
    axes = kind_of(module).offset_axes(module, shape)
    if axes is None or math.prod(axis.kernel for axis in axes) > _MOST_TAPS or not math.prod(shape):
        return "unfolding"
    costs: dict[Way, float] = {
        "whole maps": whole_map_cost(axes, shape, device),
        "offsets": offset_cost(axes, shape, device),
        "unfolding": unfolding_cost(axes, shape, device),
    }
    return min(costs, key=lambda way: costs[way])


def unfolding_cost(axes: tuple[Axis, ...], shape: tuple[int, ...], device: torch.device) -> float:
    """Estimated cost of unfolding inputs [N, C, *spatial]."""
    positions = shape[0] * math.prod(axis.positions for axis in axes)
    fan_in = shape[1] * math.prod(axis.kernel for axis in axes)
    return positions * fan_in * (max(fan_in, _NARROW) + _UNFOLD) + _call(device)


def offset_cost(axes: tuple[Axis, ...], shape: tuple[int, ...], device: torch.device) -> float:
    """Estimated cost of offset blocks on inputs [N, C, *spatial]."""
    return _box_cost(families(axes), shape, device) + _COPY * math.prod(shape)


def whole_map_cost(axes: tuple[Axis, ...], shape: tuple[int, ...], device: torch.device) -> float:
    """Estimated cost of sums over whole maps on inputs [N, C, *spatial]; infinite if impossible."""
    if not sees_most(axes):
        return math.inf
    count, channels = shape[:2]
    found = families(axes, whole=True)
    offsets = tuple(family.offset for family in found)
    frequencies = frequency_count(axes, offsets)
    if frequencies * channels**2 > _MOST_SPECTRUM:
        return math.inf
    last, leading = shape[-1], math.prod(shape[2:-1])
    transforms = 2 * math.prod(shape) * (last // 2 + 2 * frequencies / last)
    squares = float(max(channels, _NARROW) ** 2 * frequencies)
    return (
        _box_cost(found, shape, device)
        + (2 * count + 2 * len(found)) * squares
        + _TRANSFORM * transforms
        + _COPY * (math.prod(shape) + count * channels * frequencies)
        + _call(device) * (leading + 3 * last) * _chunks(shape, device)
    )


def _box_cost(found: tuple[Family, ...], shape: tuple[int, ...], device: torch.device) -> float:
    count, channels = shape[:2]
    pairs, calls = 0, 0
    for family in found:
        for box in family.boxes:
            sides = [stop - start for start, stop in box]
            pairs += math.prod(sides)
            calls += 1 if channels <= NARROW else math.prod(sides[:-1])
    called = _call(device) * calls * _chunks(shape, device)
    return float(count * pairs * max(channels, _NARROW) ** 2) + called


def _call(device: torch.device) -> int:
    return _CALL if device.type == "cpu" else _LAUNCH


def _chunks(shape: tuple[int, ...], device: torch.device) -> int:
    return -(-shape[0] // images_per_chunk(math.prod(shape[1:]), device))
