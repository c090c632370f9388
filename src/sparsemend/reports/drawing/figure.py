"""What a figure is: marks in data coordinates on panels with axes, and the table behind them.

Plain data. :mod:`sparsemend.reports.drawing.svg` draws it; nothing else knows about pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sparsemend.files import csv_text
from sparsemend.reports.drawing.scale import Scale

Value = str | float | int | None
Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A polyline; it breaks where a point is not finite."""

    points: tuple[Point, ...]
    colour: str
    width: float = 2.0
    dash: str = ""


@dataclass(frozen=True)
class Area:
    """What lies between two curves over the same x; it breaks where a point is not finite."""

    x: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    colour: str
    opacity: float = 0.16


@dataclass(frozen=True)
class Box:
    """A rectangle; ``tip`` is shown on hover, focus and touch."""

    x0: float
    x1: float
    y0: float
    y1: float
    colour: str
    opacity: float = 1.0
    outline: str = ""
    gap: float = 0.0
    tip: str = ""


@dataclass(frozen=True)
class Dot:
    """A marker: circle, square, diamond, triangle, or bar (a short upright stroke)."""

    x: float
    y: float
    colour: str
    shape: str = "circle"
    radius: float = 4.0
    hollow: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Label:
    """Text at a place, moved by (dx, dy) pixels."""

    x: float
    y: float
    text: str
    colour: str = "ink"
    anchor: str = "start"
    dx: float = 0.0
    dy: float = 0.0
    bold: bool = False


@dataclass(frozen=True)
class Group:
    """Marks of one thing, such as a layer; its ``tip`` precedes those of its marks."""

    tip: str
    marks: tuple[Line | Area | Box | Dot | Label, ...]


Mark = Line | Area | Box | Dot | Label | Group


@dataclass(frozen=True)
class Axis:
    """A scale, its title with units, and what of it is shown.

    ``inks`` colours the labels, one by one; without them they are muted.
    """

    scale: Scale
    title: str = ""
    labels: bool = True
    grid: bool = True
    inks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Panel:
    """A plotting area of ``width`` × ``height`` pixels.

    ``right`` leaves room for labels beside it.
    """

    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    width: float
    height: float
    title: str = ""
    right: float = 12.0


@dataclass(frozen=True)
class Plate:
    """One drawing: rows of panels whose plotting areas are aligned; None leaves a place empty.

    ``describe`` is what a screen reader says of it.
    """

    rows: tuple[tuple[Panel | None, ...], ...]
    describe: str
    title: str = ""


@dataclass(frozen=True)
class Table:
    """The numbers behind a figure: one row per thing shown."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]

    def csv(self) -> str:
        """As comma-separated values with a header, empty where undefined.

        Numbers have nine significant digits, more than the float32 measurements behind them.
        """
        return csv_text([self.columns, *([_cell(value) for value in row] for row in self.rows)])


@dataclass(frozen=True)
class Figure:
    """A titled set of plates with its caption and numbers.

    Attributes
    ----------
    key
        Names the figure in the page and in file names: lower case, digits and hyphens.
    title, caption
        What it shows; how to read it.
    plates
        Drawings that flow beside and below each other.
    table
        Every number shown.
    columns
        How many plates fit beside each other in a file of their own.
    compact
        The figure fits into half a page.
    """

    key: str
    title: str
    caption: str
    plates: tuple[Plate, ...]
    table: Table
    columns: int = 1
    compact: bool = False


def _cell(value: Value) -> Value:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.9g}" if isinstance(value, float) else value


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Places near ``wanted`` at least ``gap`` apart in [low, high], in the same order.

    For labels beside curves that end close together. Where they cannot all fit, the gap shrinks.
    """
    count = len(wanted)
    if count > 1:
        gap = min(gap, (high - low) / (count - 1))
    order = sorted(range(count), key=lambda i: wanted[i])
    # Push up from below, then down from above: what is left is within the ends.
    places: list[float] = []
    for rank, index in enumerate(order):
        least = low if not rank else places[-1] + gap
        places.append(max(wanted[index], least))
    for rank in reversed(range(count)):
        most = high if rank == count - 1 else places[rank + 1] - gap
        places[rank] = min(places[rank], most)
    found = [0.0] * count
    for rank, index in enumerate(order):
        found[index] = places[rank]
    return found
