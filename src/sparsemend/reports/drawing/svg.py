"""Plates as SVG: one walk over the marks, for the page (CSS variables) and for files (colours)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import groupby

from sparsemend.reports.drawing.figure import Area, Box, Dot, Label, Line, Mark, Plate
from sparsemend.reports.drawing.layout import SIZE, TITLE, Frame, Layout, layout, left_of
from sparsemend.reports.drawing.palette import Paint, light, variable
from sparsemend.reports.drawing.text import escape

FONT = "Helvetica, Arial, 'Liberation Sans', 'DejaVu Sans', sans-serif"
_BETWEEN = 14.0


def svg(plate: Plate, *, identity: str = "") -> str:
    """A plate for the page: colours follow the reader's theme, marks carry their tips.

    Parameters
    ----------
    plate
        What to draw.
    identity
        The element's id.
    """
    placed = layout(plate)
    inner = "".join(_plate(plate, placed, variable))
    named = f' id="{escape(identity)}"' if identity else ""
    return (
        f'<svg{named} class="plate" role="img" aria-label="{escape(plate.describe)}" '
        f'viewBox="0 0 {_n(placed.width)} {_n(placed.height)}" '
        f'width="{_n(placed.width)}" height="{_n(placed.height)}" '
        f'font-size="{_n(SIZE)}">{inner}</svg>'
    )


def svg_file(plates: Sequence[Plate], columns: int) -> str:
    """Plates side by side as one SVG document on white, for papers.

    Parameters
    ----------
    plates
        What to draw, row by row.
    columns
        How many to a row.
    """
    placed = [layout(plate) for plate in plates]
    cell = max(p.width for p in placed) + _BETWEEN
    parts, y = [], _BETWEEN
    for start in range(0, len(plates), columns):
        row = range(start, min(start + columns, len(plates)))
        for place, index in enumerate(row):
            x = _BETWEEN + place * cell
            inner = "".join(_plate(plates[index], placed[index], light))
            parts.append(f'<g transform="translate({_n(x)} {_n(y)})">{inner}</g>')
        y += max(placed[index].height for index in row) + _BETWEEN
    width = _BETWEEN + cell * min(columns, len(plates))
    label = escape("; ".join(plate.describe for plate in plates))
    return (
        f'<?xml version="1.0" encoding="UTF-8"?>\n<svg xmlns="http://www.w3.org/2000/svg" '
        f'role="img" aria-label="{label}" viewBox="0 0 {_n(width)} {_n(y)}" '
        f'width="{_n(width)}" height="{_n(y)}" font-family="{FONT}" font-size="{_n(SIZE)}">'
        f'<rect width="100%" height="100%" fill="{light("ground")}"/>{"".join(parts)}</svg>\n'
    )


def _plate(plate: Plate, placed: Layout, paint: Paint) -> Iterator[str]:
    if plate.title:
        left = min(frame.left for frame in placed.frames)
        yield _text(left, TITLE, plate.title, paint("ink"), "start", bold=True, size=TITLE)
    for frame in placed.frames:
        yield from _axes(frame, paint)
        for mark in frame.panel.marks:
            yield from _mark(mark, frame, paint)


def _axes(frame: Frame, paint: Paint) -> Iterator[str]:
    panel, left, top = frame.panel, frame.left, frame.top
    right, bottom = left + panel.width, top + panel.height
    if panel.title:
        yield _text(left, top - 8, panel.title, paint("ink"), "start", bold=True)
    grid = []
    for tick in panel.x.scale.ticks():
        x = frame.x(tick.value)
        if panel.x.grid:
            grid.append(f"M{_n(x)} {_n(top)}V{_n(bottom)}")
        if panel.x.labels:
            yield _text(x, bottom + 15, tick.label, paint("mute"), "middle")
    for index, tick in enumerate(panel.y.scale.ticks()):
        y = frame.y(tick.value)
        if panel.y.grid:
            grid.append(f"M{_n(left)} {_n(y)}H{_n(right)}")
        if panel.y.labels:
            ink, bold = (panel.y.inks[index], True) if panel.y.inks else ("mute", False)
            yield _text(left - 6, y + 4, tick.label, paint(ink), "end", bold=bold)
    if grid:
        yield f'<path d="{"".join(grid)}" stroke="{paint("grid")}" fill="none"/>'
    if panel.x.title:
        yield _text((left + right) / 2, bottom + 34, panel.x.title, paint("mute"), "middle")
    if panel.y.title:
        x, y = left - left_of(panel.y) + 14, (top + bottom) / 2
        turn = f' transform="rotate(-90 {_n(x)} {_n(y)})"'
        yield _text(x, y, panel.y.title, paint("mute"), "middle", more=turn)


def _finite(*values: float) -> bool:
    return all(map(math.isfinite, values))


def _mark(mark: Mark, frame: Frame, paint: Paint) -> Iterator[str]:
    """Nothing where a place is not finite."""
    match mark:
        case Line():
            yield _line(mark, frame, paint)
        case Area():
            yield _area(mark, frame, paint)
        case Box():
            if _finite(mark.x0, mark.x1, mark.y0, mark.y1):
                yield _box(mark, frame, paint)
        case Dot():
            if _finite(mark.x, mark.y):
                yield _dot(mark, frame, paint)
        case Label():
            if _finite(mark.x, mark.y):
                x, y = frame.x(mark.x) + mark.dx, frame.y(mark.y) + mark.dy + 4
                yield _text(x, y, mark.text, paint(mark.colour), mark.anchor, bold=mark.bold)
        case _:
            yield f"<g><title>{escape(mark.tip)}</title>"
            for part in mark.marks:
                yield from _mark(part, frame, paint)
            yield "</g>"


def _line(mark: Line, frame: Frame, paint: Paint) -> str:
    parts, pen = [], "M"
    for x, y in mark.points:
        if not _finite(x, y):
            pen = "M"
            continue
        parts.append(f"{pen}{_n(frame.x(x))} {_n(frame.y(y))}")
        pen = "L"
    dash = f' stroke-dasharray="{mark.dash}"' if mark.dash else ""
    return (
        f'<path d="{"".join(parts)}" fill="none" stroke="{paint(mark.colour)}" '
        f'stroke-width="{_n(mark.width)}" stroke-linejoin="round"{dash}/>'
    )


def _area(mark: Area, frame: Frame, paint: Paint) -> str:
    outlines = []
    points = zip(mark.x, mark.low, mark.high, strict=True)
    for finite, stretch in groupby(points, lambda point: _finite(*point)):
        if finite:
            x, low, high = zip(*stretch, strict=True)
            there, back = zip(x, high, strict=True), zip(reversed(x), reversed(low), strict=True)
            corners = (f"{_n(frame.x(x))} {_n(frame.y(y))}" for x, y in (*there, *back))
            outlines.append(f"M{'L'.join(corners)}Z")
    opacity = f'fill-opacity="{_n(mark.opacity)}"'
    return f'<path d="{"".join(outlines)}" fill="{paint(mark.colour)}" {opacity}/>'


def _box(mark: Box, frame: Frame, paint: Paint) -> str:
    x0, x1 = sorted((frame.x(mark.x0), frame.x(mark.x1)))
    y0, y1 = sorted((frame.y(mark.y0), frame.y(mark.y1)))
    x0, x1, y0, y1 = x0 + mark.gap, x1 - mark.gap, y0 + mark.gap, y1 - mark.gap
    shape = f"M{_n(x0)} {_n(y0)}H{_n(x1)}v{_n(y1 - y0)}H{_n(x0)}Z"
    more = f' stroke="{paint(mark.outline)}"' if mark.outline else ""
    if mark.opacity != 1:
        more += f' fill-opacity="{_n(mark.opacity)}"'
    return _shape(shape, paint(mark.colour), more, mark.tip)


def _dot(mark: Dot, frame: Frame, paint: Paint) -> str:
    x, y, r = frame.x(mark.x), frame.y(mark.y), mark.radius
    match mark.shape:
        case "square":
            s = 0.89 * r
            shape = f"M{_n(x - s)} {_n(y - s)}h{_n(2 * s)}v{_n(2 * s)}h{_n(-2 * s)}Z"
        case "diamond":
            s = 1.25 * r
            shape = f"M{_n(x)} {_n(y - s)}l{_n(s)} {_n(s)}l{_n(-s)} {_n(s)}l{_n(-s)} {_n(-s)}Z"
        case "triangle":
            s = 1.2 * r
            shape = f"M{_n(x)} {_n(y - s)}l{_n(s)} {_n(1.8 * s)}h{_n(-2 * s)}Z"
        case "bar":
            shape = f"M{_n(x - 1)} {_n(y - r)}h2v{_n(2 * r)}h-2Z"
        case _:
            shape = ""
    colour = paint(mark.colour)
    more = f' stroke="{colour}" stroke-width="1.6"' if mark.hollow else ""
    fill = paint("ground") if mark.hollow else colour
    if not shape:
        place = f'cx="{_n(x)}" cy="{_n(y)}" r="{_n(r)}"'
        return _element(f'circle {place} fill="{fill}"{more}', mark.tip)
    return _shape(shape, fill, more, mark.tip)


def _shape(shape: str, fill: str, more: str, tip: str) -> str:
    return _element(f'path d="{shape}" fill="{fill}"{more}', tip)


def _element(head: str, tip: str) -> str:
    if not tip:
        return f"<{head}/>"
    return f"<{head}><title>{escape(tip)}</title></{head.split(' ', 1)[0]}>"


def _text(
    x: float,
    y: float,
    text: str,
    fill: str,
    anchor: str,
    *,
    bold: bool = False,
    size: float = SIZE,
    more: str = "",
) -> str:
    weight = ' font-weight="600"' if bold else ""
    sized = f' font-size="{_n(size)}"' if size != SIZE else ""
    at = f'x="{_n(x)}" y="{_n(y)}"'
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text {at} fill="{fill}"{side}{weight}{sized}{more}>{escape(text)}</text>'


def _n(value: float) -> str:
    """A coordinate to a tenth of a pixel (opacities to a hundredth), as short as possible."""
    text = f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"
    text = text.rstrip("0").rstrip(".")
    return "0" if text in {"-0", ""} else text
