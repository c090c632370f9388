"""Raw and remaining damage of every layer against density, one small panel a layer."""

from __future__ import annotations

import math
from collections.abc import Iterator

from sparsemend.diagnosis import Diagnosis
from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Area,
    Axis,
    Dot,
    Figure,
    Group,
    Line,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.scale import Logarithmic, Root, end_above
from sparsemend.reports.drawing.text import number, numbered, percent, shorten

_SIZE = (150.0, 84.0)
# Up to so many layers every density has a dot with its values.
_MOST_LAYERS = 60


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure for every diagnosis with at least two densities."""
    for index, (name, diagnosis) in enumerate(contents.diagnoses.items()):
        if len(diagnosis.densities) > 1:
            key = numbered("damage", index, len(contents.diagnoses))
            yield damage_curves(diagnosis, name, key)


def damage_curves(diagnosis: Diagnosis, name: str = "", key: str = "damage") -> Figure:
    """Small multiples that share both axes, so that layers can be compared."""
    end = end_above((*diagnosis.raw.flat, *diagnosis.residual.flat), 0.1)
    densities = diagnosis.densities.tolist()
    x = Logarithmic(densities[0], densities[-1], sparse=True)
    return Figure(
        key,
        f"Damage of every layer, before and after repair{f': {name}' if name else ''}",
        f"Grey: damage before repair; coloured: what repair {diagnosis.repair} leaves. Blue "
        "between them is what was repaired, orange where repair made it worse. Damage is the "
        "mean squared error over the variance of the outputs. All panels share both axes: density "
        "on a logarithmic one, damage on a square-root one.",
        tuple(_plate(diagnosis, index, x, Root(end)) for index in range(len(diagnosis.layers))),
        Table(
            ("layer", "density", "raw", "residual", "rr"),
            tuple(
                (layer, *values)
                for layer, *rows in zip(
                    diagnosis.layers,
                    diagnosis.raw.tolist(),
                    diagnosis.residual.tolist(),
                    diagnosis.rr.tolist(),
                    strict=True,
                )
                for values in zip(densities, *rows, strict=True)
            ),
        ),
        columns=6,
    )


def _plate(diagnosis: Diagnosis, index: int, x: Logarithmic, y: Root) -> Plate:
    layer = diagnosis.layers[index]
    densities = tuple(diagnosis.densities.tolist())
    raw, left = (tuple(a[index].tolist()) for a in (diagnosis.raw, diagnosis.residual))
    better = tuple(map(min, left, raw))
    worse = tuple(map(max, left, raw))
    dots: list[Dot] = []
    # Many layers get fewer dots each, or the page would grow too large for a mail.
    stride = math.ceil(len(diagnosis.layers) / _MOST_LAYERS)
    points = list(zip(densities, raw, left, strict=True))
    for density, before, after in points[::stride]:
        colour = "red" if after > before else "blue"
        tip = f"density {percent(density)}: {number(before)}, repaired {number(after)}"
        dots.append(Dot(density, after, colour, radius=1.7, tip=tip))
    marks: tuple[Area | Line | Dot, ...] = (
        Area(densities, better, raw, "blue"),
        Area(densities, raw, worse, "red", 0.3),
        Line(tuple(zip(densities, raw, strict=True)), "grey", 1.5),
        Line(tuple(zip(densities, left, strict=True)), "blue", 1.5),
        *dots,
    )
    panel = Panel(
        Axis(x), Axis(y), (Group(layer, marks),), *_SIZE, title=shorten(layer, 24), right=20
    )
    return Plate(((panel,),), describe=f"Damage of layer {layer} against density")
