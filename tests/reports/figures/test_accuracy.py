import itertools

import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import CHANCE, DENSE, MIDPOINTS, make_records

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Dot, Label
from sparsemend.reports.figures.accuracy import accuracy, figures


def test_accuracies_beside_dense_and_guessing():
    (panel,) = panels(accuracy(make_records()))
    labels = {m.text: m.y for m in marks(panel, Label)}
    assert labels["dense 70\u00a0%"] == DENSE
    assert labels["guessing 10\u00a0%"] == CHANCE
    for rule in MIDPOINTS:
        dots = [m for m in grouped(panel)[rule].marks if isinstance(m, Dot)]
        assert all(CHANCE <= d.y <= DENSE for d in dots)


def test_names_are_in_the_order_of_the_average_and_clear_of_each_other():
    (panel,) = panels(accuracy(make_records()))
    places = {m.text: panel.y.scale.position(m.y) for m in marks(panel, Label)}
    names = sorted(MIDPOINTS, key=lambda rule: places[rule])
    assert names == sorted(MIDPOINTS, key=lambda rule: MIDPOINTS[rule])
    ordered = sorted(places.values())
    gaps = [b - a for a, b in itertools.pairwise(ordered)]
    assert min(gaps) * panel.height > 14


def test_table_has_every_record():
    records = make_records()
    table = accuracy(records).table
    assert len(table.rows) == len(records)
    row = dict(zip(table.columns, table.rows[5], strict=True))
    assert row["top-1 repaired"] == records[5].top1_repaired
    assert row["seed"] == records[5].cell.seed
    assert row["KL"] == pytest.approx(records[5].kl)


def test_without_labels_there_is_none():
    assert list(figures(Contents(records=make_records(labels=False)))) == []
