"""Relative Repairability of every layer at every density, beside the damage at one density."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from sparsemend.diagnosis import Diagnosis
from sparsemend.reports.contents import Contents, shown_density
from sparsemend.reports.drawing.figure import (
    Axis,
    Box,
    Dot,
    Figure,
    Group,
    Label,
    Line,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.palette import STEPS, diverging_step
from sparsemend.reports.drawing.scale import Categories, Columns, Linear, end_above, nice_end
from sparsemend.reports.drawing.text import number, numbered, percent

# The scale's end: at least 2, so that it is even around 1, and at most this.
_LARGEST_TOP = 4.0
_WIDTH = 540.0


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure for every diagnosis."""
    for index, (name, diagnosis) in enumerate(contents.diagnoses.items()):
        key = numbered("repairability", index, len(contents.diagnoses))
        yield repairability(diagnosis, name, key)


def scale_top(diagnosis: Diagnosis) -> float:
    """The colour scale's upper end: round, at or above the largest RR, from 2 to 4."""
    finite = diagnosis.rr[np.isfinite(diagnosis.rr)]
    largest = float(finite.max()) if finite.size else 1.0
    return min(nice_end(max(largest, 2.0)), _LARGEST_TOP)


def repairability(diagnosis: Diagnosis, name: str = "", key: str = "repairability") -> Figure:
    """Heat map of RR, and raw and remaining damage of every layer at about 10 % density."""
    top, k = scale_top(diagnosis), shown_density(diagnosis)
    rows = Categories(diagnosis.layers)
    step = 17.0 if len(diagnosis.layers) <= 30 else 12.5
    height = step * len(diagnosis.layers)
    column = Columns(tuple(diagnosis.densities.tolist()))
    heat = Panel(
        Axis(column, "density: weights kept in the layer", grid=False),
        Axis(rows, grid=False),
        tuple(_rows(diagnosis, top)),
        _WIDTH,
        height,
        right=18,
    )
    plate = Plate(
        ((_key(top), None), (heat, _damage(diagnosis, k, rows, height))),
        describe=f"Heat map of Relative Repairability, {len(diagnosis.layers)} layers by "
        f"{len(diagnosis.densities)} densities, and damage of each layer at "
        f"{percent(diagnosis.densities[k])} density before and after repair",
    )
    return Figure(
        key,
        f"Where the damage is, and whether repair undoes it{f': {name}' if name else ''}",
        _caption(diagnosis, top),
        (plate,),
        Table(
            ("layer", *(f"RR at density {d!r}" for d in diagnosis.densities.tolist())),
            tuple(
                (layer, *row)
                for layer, row in zip(diagnosis.layers, diagnosis.rr.tolist(), strict=True)
            ),
        ),
    )


def _rows(diagnosis: Diagnosis, top: float) -> Iterator[Group]:
    densities = diagnosis.densities.tolist()
    for r, (layer, values) in enumerate(zip(diagnosis.layers, diagnosis.rr.tolist(), strict=True)):
        cells: list[Box | Label | Line] = []
        for c, (density, rr) in enumerate(zip(densities, values, strict=True)):
            box = (c - 0.5, c + 0.5, r - 0.5, r + 0.5)
            at = f"density {percent(density)}: RR {number(rr)}"
            if math.isnan(rr):
                tip = f"density {percent(density)}: RR not defined, no damage"
                cells.append(Box(*box, "ground", outline="grid", gap=0.5, tip=tip))
                cells.append(Line(((c - 0.3, r + 0.3), (c + 0.3, r - 0.3)), "axis", 1))
                continue
            cells.append(Box(*box, diverging_step(rr, top), gap=0.5, tip=at))
            if rr > top:
                cells.append(Label(c, r, "+", "ground", "middle"))
        yield Group(layer, tuple(cells))


def _key(top: float) -> Panel:
    """The colour scale, with its ends."""
    width = 2.0 / STEPS
    marks: list[Box | Label] = []
    for step in range(STEPS):
        low, high = step * width, (step + 1) * width
        marks.append(Box(low, high, 0, 1, f"d{step}", gap=-0.2))
    for value, text, anchor in (
        (0.0, "RR 0: fully repairable", "start"),
        (1.0, "1: repair changes nothing", "middle"),
        (2.0, f"{number(top)}: repair makes it worse", "end"),
    ):
        marks.append(Label(value, 1, text, "mute", anchor, dy=-11))
    scale = Linear(0, 2)
    return Panel(
        Axis(scale, labels=False, grid=False),
        Axis(Linear(0, 1), labels=False, grid=False),
        tuple(marks),
        _WIDTH,
        9,
        title=" ",
        right=18,
    )


def _damage(diagnosis: Diagnosis, k: int, rows: Categories, height: float) -> Panel:
    """Raw and remaining damage of every layer at one density, as dots on a line."""
    raw, left = diagnosis.raw[:, k].tolist(), diagnosis.residual[:, k].tolist()
    end = end_above((*raw, *left), 0.1)
    marks: list[Group] = []
    for r, (layer, before, after) in enumerate(zip(diagnosis.layers, raw, left, strict=True)):
        colour = "red" if after > before else "blue"
        tip = f"damage at {percent(diagnosis.densities[k])} density: {number(before)}, "
        tip += f"after repair {number(after)}"
        marks.append(
            Group(
                layer,
                (
                    Line(((before, r), (after, r)), "axis", 1.6),
                    Dot(before, r, "grey", "bar", 4, tip=tip),
                    Dot(after, r, colour, radius=3.6, tip=tip),
                ),
            )
        )
    heading = (
        Label(end, -0.5, "| before", "mute", "end", dx=-62, dy=-10),
        Label(end, -0.5, "● after", "blue", "end", dx=-4, dy=-10, bold=True),
    )
    return Panel(
        Axis(Linear(0, end, count=4), f"damage at {percent(diagnosis.densities[k], 2)} density"),
        Axis(rows, labels=False, grid=False),
        (*marks, *heading),
        280,
        height,
        right=14,
    )


def _caption(diagnosis: Diagnosis, top: float) -> str:
    beyond = int((np.nan_to_num(diagnosis.rr, nan=0.0) > top).sum())
    text = (
        f"Left: Relative Repairability (RR), the damage that repair {diagnosis.repair} leaves "
        f"over the damage before it, for layers in execution order. Colours run from 0 to "
        f"{number(top)}"
    )
    if beyond:
        largest = number(float(np.nanmax(diagnosis.rr)))
        text += f"; {beyond} cells marked + lie above (up to {largest}) and have its end colour"
    text += (
        ". A struck-out cell means that nothing was damaged there. Right: damage is the mean "
        "squared error of a layer's outputs over their variance, so 1 means an error as large "
        "as the signal."
    )
    return text
