from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import FORCED, SPARSITIES, make_ablation, make_records

from sparsemend.reports import Contents
from sparsemend.reports.ablations import find_ablations, gains
from sparsemend.reports.drawing.figure import Dot, Label
from sparsemend.reports.figures.ablation import figures, forced


def ablation():
    (found,) = find_ablations(make_ablation())
    return found


def test_three_curves_and_the_gain_in_words():
    figure = forced(ablation())
    (panel,) = panels(figure)
    assert set(grouped(panel)) == {"erk", FORCED, "lamp"}
    assert {m.text for m in marks(panel, Label)} == set(grouped(panel))
    base, changed = (
        {m.x: m.y for m in grouped(panel)[rule].marks if isinstance(m, Dot)}
        for rule in ("erk", FORCED)
    )
    assert changed[0.9] - base[0.9] > 0.0199
    (words,) = gains(ablation())
    assert words in figure.caption


def test_table_has_every_point():
    assert len(forced(ablation()).table.rows) == 3 * len(SPARSITIES)


def test_keys():
    records = make_ablation()
    assert [f.key for f in figures(Contents(records=records))] == ["ablation"]
    assert list(figures(Contents(records=make_records()))) == []
