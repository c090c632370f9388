import dataclasses

import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import CHANCE, DENSE, MIDPOINTS, SPARSITIES, make_records

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Dot, Label
from sparsemend.reports.drawing.scale import Logarithmic
from sparsemend.reports.figures.cost import against_cost, figures


def costing(records, share=2.0):
    """The same where a weight multiplies more often than on average."""
    return tuple(
        dataclasses.replace(r, kept_multiplications=share * (1 - r.cell.sparsity)) for r in records
    )


def targeted(records, kind="latency", unit=0.01):
    """The same, made for a target that was missed by a tenth."""
    return tuple(
        dataclasses.replace(
            r,
            cell=dataclasses.replace(
                r.cell, sparsity=None, target=f"{kind} {unit * (1 - r.cell.sparsity)!r}"
            ),
            reached=1.1 * unit * (1 - r.cell.sparsity),
        )
        for r in records
    )


def test_dots_stand_at_what_it_costs():
    records = costing(make_records())
    (panel,) = panels(against_cost(records))
    assert isinstance(panel.x.scale, Logarithmic)
    for rule in MIDPOINTS:
        dots = [m for m in grouped(panel)[rule].marks if isinstance(m, Dot)]
        costs = sorted(100 * 2 * (1 - s) for s in SPARSITIES)
        assert [dot.x for dot in dots] == pytest.approx(costs)
        assert all(0 <= panel.x.scale.position(dot.x) <= 1 for dot in dots)
    labels = {m.text: m.y for m in marks(panel, Label)}
    assert (labels["dense 70\u00a0%"], labels["guessing 10\u00a0%"]) == (DENSE, CHANCE)


def test_what_was_measured_has_a_plate_of_its_own():
    records = targeted(costing(make_records(seeds=[0])))
    multiplied, timed = panels(against_cost(records))
    assert (multiplied.x.title, timed.x.title) == (
        "multiplications kept, in percent",
        "milliseconds of one input on the sparse runtime",
    )
    dots = [m for m in grouped(timed)["erk"].marks if isinstance(m, Dot)]
    assert [dot.x for dot in dots] == pytest.approx(sorted(11 * (1 - s) for s in SPARSITIES))
    assert dots[-1].tip.startswith("at most 5 ms an input on the sparse runtime: 70")


def test_table():
    table = against_cost(targeted(costing(make_records()), "size", 1e6)).table
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert len(rows) == 2 * len(MIDPOINTS) * len(SPARSITIES)
    assert {row["kind of cost"] for row in rows} == {"flops", "size"}
    (row,) = (
        row for row in rows
        if (row["rule"], row["kind of cost"], row["target"]) == ("erk", "size", "size 500000.0")
    )  # fmt: skip
    assert (row["sparsity"], row["cost"], row["seeds"]) == (None, pytest.approx(550_000), 3)


def test_without_labels_by_agreement():
    figure = against_cost(costing(make_records(labels=False)))
    (panel,) = panels(figure)
    assert (figure.title, panel.y.title) == ("Agreement against cost", "agreement")


@pytest.mark.parametrize(
    ("records", "drawn"),
    [
        (make_records(), False),  # costs are not known
        (costing(make_records(sparsities=SPARSITIES[:3])), False),
        (targeted(costing(make_records(sparsities=SPARSITIES[:2])), "flops", 1), False),
        (targeted(costing(make_records(sparsities=SPARSITIES[:3])), "flops", 1), True),
    ],
)
def test_there_is_one_where_there_are_curves(records, drawn):
    assert bool(list(figures(Contents(records=records)))) == drawn
