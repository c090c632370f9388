"""How rules divide the same budget: density of every layer, one column a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from sparsemend.allocation import Allocation
from sparsemend.reports.contents import Contents
from sparsemend.reports.drawing.figure import Axis, Dot, Figure, Group, Line, Panel, Plate, Table
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Categories, Logarithmic
from sparsemend.reports.drawing.text import listed, numbered, percent, plural, shorten
from sparsemend.reports.series import by_budget
from sparsemend.sweeps import Record

# The sparsity at which a sweep's allocations are shown is the nearest to this.
_SHOWN_SPARSITY = 0.9
# Sparsities that differ by no more are one.
_SAME = 0.005


@dataclass(frozen=True)
class Division:
    """How one rule divides a budget.

    Attributes
    ----------
    rule
        Its name.
    densities
        Layer → kept fraction.
    sparsity
        Overall, a fraction.
    sizes
        Layer → number of weights, where they are known.
    """

    rule: str
    densities: Mapping[str, float]
    sparsity: float
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, allocation: Allocation) -> Division:
        return cls(allocation.rule, allocation.densities, allocation.sparsity, allocation.sizes)

    def kept(self, layer: str) -> int | None:
        """Number of weights that a layer keeps, where its size is known."""
        size = self.sizes.get(layer)
        return None if size is None else round(self.densities[layer] * size)


def figures(contents: Contents) -> Iterator[Figure]:
    """One figure of allocations where there are some, and one for every network of a sweep."""
    allocations = contents.allocations
    if contents.compression is not None:
        allocations = (contents.compression.allocation, *allocations)
    # A network of which nothing is kept has no place on a logarithmic axis.
    given = [Division.of(allocation) for allocation in allocations if allocation.kept]
    found = [("", given)] if given else []
    found += [pair for pair in of_sweep(contents.records) if pair[1]]
    for index, (name, divisions) in enumerate(found):
        by_rule = {division.rule: division for division in reversed(divisions)}
        key = numbered("allocations", index, len(found))
        yield side_by_side(list(reversed(by_rule.values())), name, key)


def of_sweep(records: Sequence[Record]) -> Iterator[tuple[str, list[Division]]]:
    """Network → what each rule did at the swept sparsity nearest to 90 %, or the middle target."""
    for network in dict.fromkeys(record.cell.network for record in records):
        own = [r for r in records if r.cell.network == network and r.densities]
        yield (
            network,
            [Division(r.cell.rule, r.densities, r.achieved_sparsity) for r in _at_one_budget(own)],
        )


def _at_one_budget(records: Sequence[Record]) -> list[Record]:
    """Those at the sparsity nearest to 90 %; without sparsities, at the target in the middle."""
    budgets = by_budget(records)
    sparsities = [s for _, s, _ in budgets if s is not None]
    if sparsities:
        nearest = min(sparsities, key=lambda s: abs(s - _SHOWN_SPARSITY))
        return [record for record in records if record.cell.sparsity == nearest]
    return list(budgets.values())[len(budgets) // 2] if budgets else []


def side_by_side(divisions: Sequence[Division], name: str = "", key: str = "allocations") -> Figure:
    """Each layer's density under each rule, as its distance from the overall density."""
    layers = tuple(dict.fromkeys(layer for d in divisions for layer in d.densities))
    least = min(density for d in divisions for density in d.densities.values() if density > 0)
    scale = Logarithmic(least / 1.25, 1.12, sparse=True)
    rows = Categories(layers)
    step = 17.0 if len(layers) <= 30 else 12.5
    width = max(86.0, min(230.0, 960.0 / len(divisions) - 14))
    style = series_style(division.rule for division in divisions)
    panels = tuple(
        _panel(
            division,
            Axis(scale),
            Axis(rows, labels=not index, grid=False),
            style[division.rule][0],
            (width, step * len(layers)),
        )
        for index, division in enumerate(divisions)
    )
    title = "How the rules divide the budget" if len(panels) > 1 else "How the budget is divided"
    return Figure(
        key,
        f"{title}{f': {name}' if name else ''}",
        f"Density of every layer, on a logarithmic axis, {_budget(divisions)}. "
        "The upright line is the overall density: a layer to its right keeps more than the "
        "average, one to its left less."
        + (" Hollow: given up whole." if any(0 in d.densities.values() for d in divisions) else ""),
        (
            Plate(
                (panels,),
                describe=f"Density of {plural(len(layers), 'layer')} under "
                f"{plural(len(panels), 'rule')}",
            ),
        ),
        Table(
            ("rule", "layer", "density", "kept", "size"),
            tuple(
                (d.rule, layer, density, d.kept(layer), d.sizes.get(layer))
                for d in divisions
                for layer, density in d.densities.items()
            ),
        ),
    )


def _budget(divisions: Sequence[Division]) -> str:
    """What all keep, in words; where one budget leaves rules more or less, what each keeps."""
    first = divisions[0]
    # Patterns keep whole blocks, so that numbers may differ a little at one sparsity.
    if any(abs(division.sparsity - first.sparsity) > _SAME for division in divisions):
        kept = [f"{d.rule} {percent(1 - d.sparsity)}" for d in divisions]
        return f"for one budget, which leaves of the weights {listed(kept)}"
    kept_by_first = sum(first.kept(layer) or 0 for layer in first.densities)
    of_all = f" ({kept_by_first:,} of {sum(first.sizes.values()):,} weights kept)"
    return f"at {percent(first.sparsity, 4)} sparsity{of_all if first.sizes else ''}"


def _panel(division: Division, x: Axis, y: Axis, colour: str, size: tuple[float, float]) -> Panel:
    layers = y.scale.names if isinstance(y.scale, Categories) else ()
    overall = 1 - division.sparsity
    marks: list[Line | Dot | Group] = [
        Line(((overall, -0.5), (overall, len(layers) - 0.5)), "axis", 1)
    ]
    for row, layer in enumerate(layers):
        density = division.densities.get(layer)
        if density is None:  # a layer that this rule does not know
            continue
        if density == 0:
            tip = f"{division.rule}: given up, no weight kept"
            marks.append(Dot(x.scale.value(0), row, colour, radius=3.2, hollow=True, tip=tip))
            continue
        tip = f"{division.rule}: density {percent(density)}"
        if layer in division.sizes:
            tip += f", {division.kept(layer):,} of {division.sizes[layer]:,} weights"
        line = Line(((overall, row), (density, row)), colour, 1.6)
        marks.append(Group(layer, (line, Dot(density, row, colour, radius=3.2, tip=tip))))
    title = shorten(division.rule, 16)
    return Panel(x, y, tuple(marks), *size, title=title, right=14)
