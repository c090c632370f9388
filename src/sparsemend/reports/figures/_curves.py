"""Curves over sparsity as marks, and the size of their panels."""

from __future__ import annotations

from collections.abc import Iterator

from sparsemend.reports.drawing.figure import Area, Dot, Group, Line, Mark
from sparsemend.reports.drawing.text import percent
from sparsemend.reports.series import Curve, Point

# Pixels of a panel, and beside it for the labels at its right edge.
WIDTH, RIGHT = 320.0, 100.0


def curve_marks(rule: str, curve: Curve, colour: str, shape: str, what: str) -> Iterator[Mark]:
    """A curve with its band over seeds and a dot with a tip at every sparsity."""
    x = tuple(p.sparsity for p in curve)
    if any(p.std > 0 for p in curve):
        low, high = (tuple(p.mean + sign * p.std for p in curve) for sign in (-1, 1))
        yield Area(x, low, high, colour)
    yield Line(tuple((p.sparsity, p.mean) for p in curve), colour)
    radius = 3.2 if len(curve) < 24 else 2.4
    dots = (
        Dot(
            p.sparsity,
            p.mean,
            colour,
            shape,
            radius,
            tip=f"sparsity {percent(p.sparsity, 4)}: {what} {spread_text(p)}",
        )
        for p in curve
    )
    yield Group(rule, tuple(dots))


def spread_text(point: Point) -> str:
    """Mean ± standard deviation in percent, and the number of seeds where there are several."""
    if point.count == 1:
        return percent(point.mean)
    return f"{percent(point.mean)} ± {percent(point.std, 2)} over {point.count} seeds"
