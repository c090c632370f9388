"""What a compression gave: accuracy on the way, the endings that were tried, and its time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

from sparsemend.reports.contents import Compression, Contents
from sparsemend.reports.drawing.figure import Axis, Box, Figure, Group, Label, Panel, Plate, Table
from sparsemend.reports.drawing.scale import Categories, Linear, end_above
from sparsemend.reports.drawing.text import number, percent

_WIDTH, _ROW = 300.0, 26.0


def figures(contents: Contents) -> Iterator[Figure]:
    """Accuracy where it is known, endings where several were tried, and seconds."""
    if contents.compression is None:
        return
    yield from _accuracy(contents.compression)
    yield from _coverage(contents.compression)
    yield from _tried(contents.compression)
    yield from _seconds(contents.compression)


def _accuracy(compression: Compression) -> Iterator[Figure]:
    values = {
        "dense": compression.top1_dense,
        "pruned": compression.top1_pruned,
        "repaired": compression.top1_repaired,
    }
    known = {name: value for name, value in values.items() if value is not None}
    if known:
        yield Figure(
            "before-and-after",
            "Accuracy before and after repair",
            "Top-1 accuracy on the test images; the repair never saw their labels.",
            (_bars(known, "top-1 accuracy", "blue", as_percent=True, strongest="repaired"),),
            Table(("network", "top-1"), tuple(known.items())),
            compact=True,
        )


def _coverage(compression: Compression) -> Iterator[Figure]:
    coverage = compression.coverage
    if coverage is None:
        return
    counts = {
        "all parameters": coverage.parameters,
        "weights multiplied with": coverage.matrix,
        "of these in layers": coverage.covered,
        "of these kept": compression.allocation.kept,
    }
    rows: list[tuple[str, int, str]] = [(name, count, "") for name, count in counts.items()]
    rows += [(part.parameter, part.count, part.reason) for part in coverage.left_out]
    yield Figure(
        "coverage",
        "How much of the network was pruned",
        "Numbers of parameters, tied ones counted once; the table says what was left out, and why.",
        (_bars(counts, "parameters", "blue", strongest="of these kept", counts=True),),
        Table(("what", "parameters", "why left out"), tuple(rows)),
        compact=True,
    )


def _tried(compression: Compression) -> Iterator[Figure]:
    tried = dict(compression.tried)
    if len(tried) > 1:
        # A network whose outputs are NaN has no KL: it is worse than any other.
        least = min(tried, key=lambda name: (math.isnan(tried[name]), tried[name]))
        where = "inputs that no repair saw" if compression.heldout else "the calibration inputs"
        classes = compression.kl is not None
        what = "KL(dense ‖ repaired) in nats" if classes else "the mean loss"
        name = "KL" if classes else "loss"
        yield Figure(
            "tried",
            "Repairs that were tried",
            f"Divergence from the dense network, {what} on {where}: lower "
            "is better, and the lowest was taken.",
            (_bars(tried, "KL in nats" if classes else name, "blue", strongest=least),),
            Table(("repair", name), tuple(tried.items())),
            compact=True,
        )


def _seconds(compression: Compression) -> Iterator[Figure]:
    seconds = dict(compression.seconds)
    if seconds:
        yield Figure(
            "seconds",
            "Where the time went",
            f"Wall-clock seconds of each stage, {number(sum(seconds.values()))} in all.",
            (_bars(seconds, "seconds", "grey"),),
            Table(("stage", "seconds"), tuple(seconds.items())),
            compact=True,
        )


def _bars(
    values: Mapping[str, float],
    title: str,
    colour: str,
    *,
    as_percent: bool = False,
    counts: bool = False,
    strongest: str = "",
) -> Plate:
    """Horizontal bars with their values beside them; ``strongest`` in full colour."""
    end = end_above(values.values(), 1e-9)
    show: Callable[[float], str] = percent if as_percent else number
    show = "{:,}".format if counts else show
    groups = []
    for row, (name, value) in enumerate(values.items()):
        text = show(value)
        full = not strongest or name == strongest
        length = value if math.isfinite(value) else 0.0
        bar = Box(0, length, row - 0.32, row + 0.32, colour if full else "grey", tip=text)
        label = Label(length, row, text, "ink", dx=6, bold=name == strongest)
        groups.append(Group(name, (bar, label)))
    panel = Panel(
        Axis(Linear(0, end, as_percent=as_percent), title),
        Axis(Categories(tuple(values)), grid=False),
        tuple(groups),
        _WIDTH,
        _ROW * len(values),
        right=64,
    )
    return Plate(((panel,),), f"{title}: " + ", ".join(f"{n} {show(v)}" for n, v in values.items()))
