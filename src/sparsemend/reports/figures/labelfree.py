"""The transition with labels and without: how close agreement comes to accuracy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import (
    Axis,
    Dot,
    Figure,
    Group,
    Label,
    Line,
    Mark,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Categories, sparsity_scale
from sparsemend.reports.drawing.text import percent, points
from sparsemend.reports.figures._curves import RIGHT, WIDTH
from sparsemend.reports.series import Pair, midpoint_pairs, setting, setting_title


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where some transition is known both ways."""
    found = midpoint_pairs(contents.transitions)
    if found:
        yield label_free(found)


def label_free(pairs: Sequence[Pair]) -> Figure:
    """Both midpoints of every rule on one line, one plate a setting."""
    style = series_style(one.rule for one, _ in pairs)
    settings = list(dict.fromkeys(setting(one) for one, _ in pairs))
    values = [t.midpoint.mean or 0.0 for pair in pairs for t in pair]
    scale = sparsity_scale(values)
    plates = []
    for key in settings:
        chosen = [pair for pair in pairs if setting(pair[0]) == key]
        rows: list[Mark] = []
        for row, (one, two) in enumerate(chosen):
            labelled, free = one.midpoint.mean or 0.0, two.midpoint.mean or 0.0
            colour = style[one.rule][0]
            tip = f"with labels {percent(labelled)}, without {percent(free)}"
            rows += [
                Line(((labelled, row), (free, row)), colour, 1.6),
                Group(
                    one.rule,
                    (
                        Dot(labelled, row, colour, radius=4.2, tip=tip),
                        Dot(free, row, colour, radius=4.2, hollow=True, tip=tip),
                    ),
                ),
                Label(scale.high, row, points(free - labelled), "mute", dx=8),
            ]
        panel = Panel(
            Axis(scale, "sparsity at half recovery"),
            Axis(
                Categories(tuple(one.rule for one, _ in chosen)),
                grid=False,
                inks=tuple(style[one.rule][0] for one, _ in chosen),
            ),
            tuple(rows),
            WIDTH,
            18.0 * len(chosen),
            right=RIGHT,
        )
        title = setting_title(key, settings)
        plates.append(Plate(((panel,),), f"Midpoints with and without labels, {title}", title))
    return Figure(
        "label-free",
        "The transition without labels",
        "Filled: midpoint of the recovery of accuracy, from labelled test images. Hollow: "
        "midpoint of the recovery of agreement with the dense network, from unlabelled inputs. "
        "Their difference is written beside them.",
        tuple(plates),
        Table(
            ("network", "mask", "repair", "rule", "midpoint of accuracy", "midpoint of agreement"),
            tuple(
                (one.network, one.mask, one.repair, one.rule, one.midpoint.mean, two.midpoint.mean)
                for one, two in pairs
            ),
        ),
        columns=2,
    )
