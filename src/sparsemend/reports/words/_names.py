"""Layers in a sentence: short enough to read."""

from __future__ import annotations

from collections.abc import Sequence

from sparsemend.reports.drawing.text import listed, number, shorten

_LONGEST, _MOST = 40, 3


def short(layer: str) -> str:
    """A layer's name, its middle left out where it is long."""
    return shorten(layer, _LONGEST)


def with_value(layer: str, value: float) -> str:
    """Such as fc (0.15)."""
    return f"{short(layer)} ({number(float(value), 2)})"


def some(layers: Sequence[str]) -> str:
    """The first three, and how many more there are."""
    shown = [short(layer) for layer in layers[:_MOST]]
    rest = len(layers) - len(shown)
    return listed([*shown, f"{rest} more"]) if rest else listed(shown)
