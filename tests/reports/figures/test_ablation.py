from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import FORCED, SPARSITIES, make_ablation, make_records

from sparsemend.reports import Contents
from sparsemend.reports.ablations import find_ablations, gains
from sparsemend.reports.drawing.figure import Dot, Label
from sparsemend.reports.figures.ablation import figures, forced


def ablation():
    (found,) = find_ablations(make_ablation())
    return found


def test_found_by_the_rule_s_name():
    found = ablation()
    assert (found.layers, found.base, found.forced, found.other) == (
        *("projection", "erk", FORCED, "lamp"),
    )
    assert len(found.records) == 3 * len(SPARSITIES)
    assert find_ablations(make_records()) == []


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
    assert f"at {len(SPARSITIES) - 1} of {len(SPARSITIES)} sparsities" in words
    assert "between −1.0 points (at 50\u00a0% sparsity) and +2.0 points" in words


def test_table_has_every_point():
    assert len(forced(ablation()).table.rows) == 3 * len(SPARSITIES)


def test_keys():
    records = make_ablation()
    assert [f.key for f in figures(Contents(records=records))] == ["ablation"]
    assert list(figures(Contents(records=make_records()))) == []
