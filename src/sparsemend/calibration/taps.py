"""Where the taps of a convolution's kernel meet its input: integers only.

Along one dimension, tap k at output p reads input index p·stride + k·dilation − padding. Split
by the stride, that is index i = p + q of the plane of phase r, the inputs r, r + stride, … .
Two taps (r1, q1) and (r2, q2) read the pair (i, i + o), o = q2 − q1, for i in a range: the sum of
products over such pairs depends on (r1, r2, o) and, through the range, on the borders.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

Index = tuple[int, ...]
Box = tuple[tuple[int, int], ...]  # one half-open range per dimension


@dataclass(frozen=True)
class Axis:
    """One spatial dimension of a convolution."""

    size: int
    before: int
    after: int
    kernel: int
    stride: int
    dilation: int

    @property
    def positions(self) -> int:
        """Number of outputs."""
        reach = self.dilation * (self.kernel - 1) + 1
        return max(0, (self.size + self.before + self.after - reach) // self.stride + 1)

    def tap(self, k: int) -> tuple[int, int]:
        """Phase r and shift q of tap k."""
        shift, phase = divmod(k * self.dilation - self.before, self.stride)
        return phase, shift

    def index(self, position: int, k: int) -> int:
        """Input index that tap k reads at an output position; it may lie outside."""
        return position * self.stride + k * self.dilation - self.before

    def taps_with_data(self, position: int) -> range:
        """Taps that read data, not padding, at an output position."""
        first = self.index(position, 0)
        start = max(0, -(first // self.dilation))
        return range(start, max(start, min(self.kernel, -(-(self.size - first) // self.dilation))))

    def overlap(self, first: int, second: int) -> tuple[int, int]:
        """Indices of the first tap's plane at outputs where both taps read data."""
        start, stop = 0, self.positions
        for phase, shift in (self.tap(first), self.tap(second)):
            length = -(-(self.size - phase) // self.stride)
            start, stop = max(start, -shift), min(stop, length - shift)
        shift = self.tap(first)[1]
        return start + shift, max(start, stop) + shift


@dataclass(frozen=True)
class Family:
    """All pairs of taps with the same two phases and the same offset between them.

    Attributes
    ----------
    phases
        Phases of the first and of the second tap, one per dimension.
    offset
        Shift from the first to the second, one per dimension.
    boxes
        Disjoint boxes of the first plane; every pair's sum is a sum over some of them.
    pairs
        (first tap, second tap, numbers of its boxes); taps are numbered as in the weight.
    """

    phases: tuple[Index, Index]
    offset: Index
    boxes: tuple[Box, ...]
    pairs: tuple[tuple[int, int, tuple[int, ...]], ...]


def axes_of(module: Any, spatial: tuple[int, ...], padded: bool) -> tuple[Axis, ...]:
    """The dimensions of a convolution on inputs of this size.

    Parameters
    ----------
    module
        A convolution that is not transposed.
    spatial
        Size of its input.
    padded
        Whether the input has been padded already.
    """
    axes = []
    for dim, size in enumerate(spatial):
        kernel, dilation = module.kernel_size[dim], module.dilation[dim]
        if padded or module.padding == "valid":
            before = after = 0
        elif module.padding == "same":
            before = dilation * (kernel - 1) // 2
            after = dilation * (kernel - 1) - before
        else:
            before = after = module.padding[dim]
        axes.append(Axis(size, before, after, kernel, module.stride[dim], dilation))
    return tuple(axes)


def all_taps(axes: tuple[Axis, ...]) -> list[Index]:
    """Taps in the order of the weight's kernel."""
    return list(itertools.product(*(range(axis.kernel) for axis in axes)))


def overlap(axes: tuple[Axis, ...], first: Index, second: Index) -> Box:
    """Box of the first tap's plane at outputs where both taps read data."""
    return tuple(a.overlap(k1, k2) for a, k1, k2 in zip(axes, first, second, strict=True))


def phase(axes: tuple[Axis, ...], tap: Index) -> Index:
    return tuple(axis.tap(k)[0] for axis, k in zip(axes, tap, strict=True))


@lru_cache(maxsize=64)
def families(axes: tuple[Axis, ...]) -> tuple[Family, ...]:
    """Group the unordered pairs of taps by phases and offset, and cut their ranges into boxes."""
    taps = all_taps(axes)
    shifts = [tuple(a.tap(k)[1] for a, k in zip(axes, tap, strict=True)) for tap in taps]
    phases = [phase(axes, tap) for tap in taps]
    grouped: dict[tuple[Any, ...], list[tuple[int, int]]] = defaultdict(list)
    for first, second in itertools.combinations_with_replacement(range(len(taps)), 2):
        offset = tuple(b - a for a, b in zip(shifts[first], shifts[second], strict=True))
        reverse = tuple(-o for o in offset)
        key = (phases[first], phases[second], offset)
        turned = (phases[second], phases[first], reverse)
        if turned < key:  # one of a product and its transpose is enough
            grouped[turned].append((second, first))
        else:
            grouped[key].append((first, second))
    return tuple(
        _family(axes, taps, (r1, r2), offset, pairs) for (r1, r2, offset), pairs in grouped.items()
    )


def _family(
    axes: tuple[Axis, ...],
    taps: list[Index],
    phases: tuple[Index, Index],
    offset: Index,
    pairs: list[tuple[int, int]],
) -> Family:
    ranges = [overlap(axes, taps[first], taps[second]) for first, second in pairs]
    cuts = []
    for dim in range(len(axes)):
        ends = sorted({end for box in ranges if _filled(box) for end in box[dim]})
        cuts.append(list(itertools.pairwise(ends)))
    members: dict[Box, list[int]] = defaultdict(list)
    for number, box in enumerate(ranges):
        if _filled(box):
            inside = (
                [cut for cut in cuts[dim] if start <= cut[0] and cut[1] <= stop]
                for dim, (start, stop) in enumerate(box)
            )
            for part in itertools.product(*inside):
                members[part].append(number)
    numbers: list[list[int]] = [[] for _ in pairs]
    for index, owners in enumerate(members.values()):
        for owner in owners:
            numbers[owner].append(index)
    described = zip(pairs, numbers, strict=True)
    return Family(
        phases, offset, tuple(members), tuple((a, b, tuple(n)) for (a, b), n in described)
    )


def _filled(box: Box) -> bool:
    return all(stop > start for start, stop in box)
