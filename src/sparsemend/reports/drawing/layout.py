"""Where the panels of a plate lie, in pixels."""

from __future__ import annotations

from dataclasses import dataclass

from sparsemend.reports.drawing.figure import Axis, Panel, Plate
from sparsemend.reports.drawing.scale import Categories
from sparsemend.reports.drawing.text import text_width

# Font sizes of the text and of the titles of plates.
SIZE, TITLE = 12.0, 13.5
# How much wider bold text is.
_BOLDER = 1.18


@dataclass(frozen=True)
class Frame:
    """Where a panel's plotting area lies in its plate, in pixels."""

    panel: Panel
    left: float
    top: float

    def x(self, value: float) -> float:
        return self.left + self.panel.x.scale.position(value) * self.panel.width

    def y(self, value: float) -> float:
        position = self.panel.y.scale.position(value)
        # Names are read from the top down, values grow from the bottom up.
        downward = isinstance(self.panel.y.scale, Categories)
        return self.top + (position if downward else 1 - position) * self.panel.height


@dataclass(frozen=True)
class Layout:
    """The frames of a plate and its size in pixels."""

    frames: tuple[Frame, ...]
    width: float
    height: float


def layout(plate: Plate) -> Layout:
    """Place the panels of a plate: columns and rows as wide and high as their largest."""
    columns = [
        [row[i] for row in plate.rows if i < len(row) and row[i] is not None]
        for i in range(max(map(len, plate.rows)))
    ]
    lefts, x = [], 0.0
    for column in columns:
        panels = [panel for panel in column if panel is not None]
        x += max((left_of(panel.y) for panel in panels), default=0.0)
        lefts.append(x)
        x += max((panel.width + panel.right for panel in panels), default=0.0)
    frames, y = [], TITLE + 10 if plate.title else 2.0
    for row in plate.rows:
        panels = [panel for panel in row if panel is not None]
        y += max(TITLE + 8 if panel.title else 5.0 for panel in panels)
        for left, panel in zip(lefts, row, strict=False):
            if panel is not None:
                frames.append(Frame(panel, left, y))
        y += max(panel.height + below(panel.x) for panel in panels)
    return Layout(tuple(frames), x, y + 2)


def left_of(axis: Axis) -> float:
    """Room for the labels and the title of a vertical axis."""
    labels = max((text_width(t.label, SIZE) for t in axis.scale.ticks()), default=0.0)
    labels *= _BOLDER if axis.inks else 1.0
    return 6.0 + (labels + 4.0 if axis.labels else 0.0) + (20.0 if axis.title else 0.0)


def below(axis: Axis) -> float:
    """Room for the labels and the title of a horizontal axis."""
    return (20.0 if axis.labels else 4.0) + (18.0 if axis.title else 0.0)
