"""Curves over sparsity as marks, and the size of their panels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsemend.reports.drawing.figure import Area, Dot, Group, Line, Mark
from sparsemend.reports.drawing.text import percent
from sparsemend.reports.figures._series import Curve, curves, spread_text
from sparsemend.sweeps import Record

# Pixels of a panel, and beside it for the labels at its right edge.
WIDTH, RIGHT = 320.0, 100.0
# Fewer sparsities make no curve; the matrix of rules and repairs shows them better.
_FEWEST = 4


def has_curves(records: Sequence[Record]) -> bool:
    """Whether some rule was run at enough sparsities to draw a curve."""
    found = curves(records, lambda record: record.agreement)
    return any(len(curve) >= _FEWEST for rules in found.values() for curve in rules.values())


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
