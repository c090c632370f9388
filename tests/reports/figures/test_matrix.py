import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import MIDPOINTS, make_records

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Box, Label
from sparsemend.reports.figures.matrix import figures, rules_by_repairs

FEW = {"sparsities": (0.85, 0.9), "repairs": ("none", "batchnorm")}


def test_every_rule_and_repair_has_its_number():
    records = make_records(**FEW)
    figure = rules_by_repairs(records)
    assert len(figure.plates) == 2
    panel = panels(figure)[1]
    for rule in MIDPOINTS:
        group = grouped(panel)[f"rule {rule}"]
        values = [
            r.top1_repaired for r in records
            if (r.cell.rule, r.cell.sparsity, r.cell.repair) == (rule, 0.9, "none")
        ]  # fmt: skip
        shown = [m.text for m in group.marks if isinstance(m, Label)]
        assert float(shown[0]) == pytest.approx(100 * sum(values) / 3, rel=5.01e-3)
    assert len(figure.table.rows) == 2 * 2 * len(MIDPOINTS)


def test_the_best_is_framed():
    panel = panels(rules_by_repairs(make_records(**FEW)))[1]
    framed = {
        rule for rule, g in grouped(panel).items() for m in g.marks
        if isinstance(m, Box) and m.outline
    }  # fmt: skip
    assert framed == {"rule global"}
    assert len([m for m in marks(panel, Box) if m.outline]) == 1


def test_only_where_there_are_no_curves():
    assert list(figures(Contents(records=make_records()))) == []
    assert len(list(figures(Contents(records=make_records(**FEW))))) == 1
    assert list(figures(Contents())) == []


def test_without_labels_it_is_agreement():
    figure = rules_by_repairs(make_records(labels=False, **FEW))
    assert figure.title.startswith("Agreement")
