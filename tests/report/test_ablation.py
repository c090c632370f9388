from tests.report.drawing import grouped, marks, panels
from tests.report.samples import SPARSITIES, make_ablation

from sparsemend.report import Contents
from sparsemend.report._figure import Dot, Label
from sparsemend.report.ablation import figures, forced, gains


def test_three_curves_and_the_gain_in_words():
    figure = forced(make_ablation())
    (panel,) = panels(figure)
    assert set(grouped(panel)) == {"erk", "erk, forced", "lamp"}
    assert {m.text for m in marks(panel, Label)} == set(grouped(panel))
    base, changed = (
        {m.x: m.y for m in grouped(panel)[rule].marks if isinstance(m, Dot)}
        for rule in ("erk", "erk, forced")
    )
    assert changed[0.9] - base[0.9] > 0.0199
    (words,) = gains(make_ablation())
    assert words in figure.caption
    assert f"at {len(SPARSITIES) - 1} of {len(SPARSITIES)} sparsities" in words
    assert "between −1.0 points (at 50\u00a0% sparsity) and +2.0 points" in words


def test_table_has_every_point():
    assert len(forced(make_ablation()).table.rows) == 3 * len(SPARSITIES)


def test_keys():
    one = make_ablation()
    assert [f.key for f in figures(Contents(ablations=(one,)))] == ["ablation"]
    assert [f.key for f in figures(Contents(ablations=(one, one)))] == ["ablation-1", "ablation-2"]
