"""How rules divide the same budget: density of every layer, one column a rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sparsemend.allocation import Allocation
from sparsemend.report._contents import Contents
from sparsemend.report._figure import Axis, Dot, Figure, Group, Line, Panel, Plate, Table
from sparsemend.report._palette import series_style
from sparsemend.report._scale import Categories, Logarithmic
from sparsemend.report._text import percent, plural


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure where there is an allocation."""
    found = list(contents.allocations)
    if contents.compression is not None:
        found.insert(0, contents.compression.allocation)
    if found:
        by_rule = {allocation.rule: allocation for allocation in reversed(found)}
        yield side_by_side(list(reversed(by_rule.values())))


def side_by_side(allocations: Sequence[Allocation]) -> Figure:
    """Each layer's density under each rule, as its distance from the overall density."""
    layers = tuple(dict.fromkeys(name for a in allocations for name in a))
    kept = [d for a in allocations for d in a.densities.values() if d > 0]
    scale = Logarithmic(min(kept) / 1.25, 1.12, sparse=True)
    rows = Categories(layers)
    step = 17.0 if len(layers) <= 30 else 12.5
    width = max(86.0, min(230.0, 960.0 / len(allocations) - 14))
    style = series_style(a.rule for a in allocations)
    panels = tuple(
        _panel(allocation, layers, Axis(scale), Axis(rows, labels=not index, grid=False), style,
               width, step * len(layers))
        for index, allocation in enumerate(allocations)
    )  # fmt: skip
    first = allocations[0]
    return Figure(
        "allocations",
        "How the rules divide the budget" if len(panels) > 1 else "How the budget is divided",
        f"Density of every layer, on a logarithmic axis, at {percent(first.sparsity, 4)} "
        f"sparsity ({first.kept:,} of {plural(first.total, 'weight')} kept). The upright line is "
        "the overall density: a layer to its right keeps more than the average, one to its left "
        "less.",
        (
            Plate(
                (panels,),
                describe=f"Density of {plural(len(layers), 'layer')} under "
                f"{plural(len(panels), 'rule')}",
            ),
        ),
        Table(
            ("rule", "layer", "kept", "size", "density"),
            tuple(
                (a.rule, name, kept, a.sizes[name], a.densities[name])
                for a in allocations
                for name, kept in a.items()
            ),
        ),
    )


def _panel(
    allocation: Allocation,
    layers: tuple[str, ...],
    x: Axis,
    y: Axis,
    style: dict[str, tuple[str, str]],
    width: float,
    height: float,
) -> Panel:
    colour = style[allocation.rule][0]
    overall = 1 - allocation.sparsity
    marks: list[Line | Group] = [Line(((overall, -0.5), (overall, len(layers) - 0.5)), "axis", 1)]
    for row, layer in enumerate(layers):
        density = allocation.densities.get(layer, 0.0)
        if density <= 0:  # a layer that this rule does not know, or an empty one
            continue
        tip = f"{allocation.rule}: density {percent(density)}, {allocation[layer]:,} of "
        tip += f"{allocation.sizes[layer]:,} weights"
        marks.append(
            Group(
                layer,
                (
                    Line(((overall, row), (density, row)), colour, 1.6),
                    Dot(density, row, colour, radius=3.2, tip=tip),
                ),
            )
        )
    return Panel(x, y, tuple(marks), width, height, title=allocation.rule, right=14)
