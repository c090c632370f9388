"""Which pairs of taps of a convolution's kernel have one sum of products: integers only.

Along each dimension (:class:`~sparsemend.layers.Axis`), a tap reads index i = p + q of the plane of
phase r at output p.
Two taps (r1, q1) and (r2, q2) read the pair (i, i + o), o = q2 − q1, for i in a range: the sum of
products over such pairs depends on (r1, r2, o) and, through the range, on the borders.
"""

from __future__ import annotations

import itertools
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from sparsemend.layers import Axis

Index = tuple[int, ...]
Box = tuple[tuple[int, int], ...]  # one half-open range per dimension


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
        Disjoint boxes of the first plane. Every pair's sum is a sum over some of them, or, with
        whole maps, what some of them leave of the sum over all of the map.
    pairs
        (first tap, second tap, numbers of its boxes); taps are numbered as in the weight.
    """

    phases: tuple[Index, Index]
    offset: Index
    boxes: tuple[Box, ...]
    pairs: tuple[tuple[int, int, tuple[int, ...]], ...]


def all_taps(axes: tuple[Axis, ...]) -> list[Index]:
    """Taps in the order of the weight's kernel."""
    return list(itertools.product(*(range(axis.kernel) for axis in axes)))


def overlap(axes: tuple[Axis, ...], first: Index, second: Index) -> Box:
    """Box of the first tap's plane at outputs where both taps read data."""
    return tuple(a.overlap(k1, k2) for a, k1, k2 in zip(axes, first, second, strict=True))


def phase(axes: tuple[Axis, ...], tap: Index) -> Index:
    return tuple(axis.tap(k)[0] for axis, k in zip(axes, tap, strict=True))


@lru_cache(maxsize=64)
def families(axes: tuple[Axis, ...], whole: bool = False) -> tuple[Family, ...]:
    """Group the unordered pairs of taps by phases and offset, and cut their ranges into boxes.

    With ``whole``, which needs stride 1, boxes are those that pairs lack of the whole map.
    """
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
    found = []
    for (r1, r2, offset), pairs in grouped.items():
        ranges = [overlap(axes, taps[first], taps[second]) for first, second in pairs]
        boxes, numbers = _cut(ranges, _whole_map(axes, offset) if whole else None)
        described = zip(pairs, numbers, strict=True)
        found.append(Family((r1, r2), offset, boxes, tuple((a, b, n) for (a, b), n in described)))
    return tuple(found)


def sees_most(axes: tuple[Axis, ...]) -> bool:
    """Whether the stride is 1 and every pair of taps sees at least half of what the map holds.

    Where pairs see less, the rest of the map would be subtracted from the sums over all of it
    only to leave its rounding errors.
    """
    if any(axis.stride > 1 for axis in axes):
        return False
    for first, second in itertools.combinations_with_replacement(all_taps(axes), 2):
        offset = tuple(
            a.tap(k2)[1] - a.tap(k1)[1] for a, k1, k2 in zip(axes, first, second, strict=True)
        )
        seen, present = overlap(axes, first, second), _whole_map(axes, offset)
        if not _filled(present) or 2 * _volume(seen) < _volume(present):
            return False
    return True


def _volume(box: Box) -> int:
    return math.prod(max(0, stop - start) for start, stop in box)


def _whole_map(axes: tuple[Axis, ...], offset: Index) -> Box:
    return tuple(
        (max(0, -o), min(axis.size, axis.size - o)) for axis, o in zip(axes, offset, strict=True)
    )


def _cut(
    ranges: list[Box], whole: Box | None
) -> tuple[tuple[Box, ...], tuple[tuple[int, ...], ...]]:
    """Disjoint boxes, and which of them make up each range or, with a whole, which it lacks."""
    filled = [box for box in ranges if _filled(box)]
    cuts = []
    for sides in zip(*filled, *([whole] if whole else []), strict=True):
        cuts.append(list(itertools.pairwise(sorted({end for side in sides for end in side}))))
    members: dict[Box, list[int]] = defaultdict(list)
    for part in itertools.product(*cuts) if filled else ():
        for number, box in enumerate(ranges):
            inside = all(
                start <= cut[0] and cut[1] <= stop
                for cut, (start, stop) in zip(part, box, strict=True)
            )
            if inside == (whole is None):
                members[part].append(number)
    numbers: list[list[int]] = [[] for _ in ranges]
    for index, owners in enumerate(members.values()):
        for owner in owners:
            numbers[owner].append(index)
    return tuple(members), tuple(map(tuple, numbers))


def _filled(box: Box) -> bool:
    return all(stop > start for start, stop in box)
