import dataclasses

import numpy as np
import pytest
from tests.reports.marks import grouped, marks, panels
from tests.reports.samples import make_diagnosis

from sparsemend.reports import Contents
from sparsemend.reports.contents import shown_density
from sparsemend.reports.drawing.figure import Box, Dot, Label
from sparsemend.reports.drawing.palette import diverging_step
from sparsemend.reports.figures.heatmap import figures, repairability, scale_top


def parts(diagnosis):
    """The colour scale, the heat map and the damage."""
    return panels(repairability(diagnosis))


def test_every_layer_and_density_has_a_cell_with_its_value():
    diagnosis = make_diagnosis()
    _, heat, _ = parts(diagnosis)
    rows = grouped(heat)
    assert tuple(rows) == diagnosis.layers
    for r, layer in enumerate(diagnosis.layers):
        cells = [m for m in rows[layer].marks if isinstance(m, Box)]
        assert len(cells) == len(diagnosis.densities)
        for c, cell in enumerate(cells):
            rr = diagnosis.rr[r, c]
            assert (cell.x0 + cell.x1, cell.y0 + cell.y1) == (2 * c, 2 * r)
            if np.isnan(rr):
                assert "not defined" in cell.tip
                assert not cell.colour.startswith("d")
            else:
                assert cell.colour == diverging_step(rr, 2.0)
                assert float(cell.tip.split("RR ")[1]) == pytest.approx(rr, rel=5.01e-3)


def test_table_holds_every_ratio():
    diagnosis = make_diagnosis()
    table = repairability(diagnosis).table
    assert [row[0] for row in table.rows] == list(diagnosis.layers)
    np.testing.assert_array_equal([row[1:] for row in table.rows], diagnosis.rr)
    densities = [float(name.rsplit(" ", 1)[1]) for name in table.columns[1:]]
    assert densities == diagnosis.densities.tolist()


@pytest.mark.parametrize(
    ("largest", "top", "beyond"),
    [(0.5, 2.0, False), (1.9, 2.0, False), (2.3, 2.5, False), (9.0, 4.0, True)],
)
def test_the_scale_says_its_ends_and_what_lies_beyond(largest, top, beyond):
    diagnosis = make_diagnosis()
    rr = np.full_like(diagnosis.rr, 0.4)
    rr[1, 3] = largest
    diagnosis = dataclasses.replace(diagnosis, rr=rr)
    assert scale_top(diagnosis) == top
    figure = repairability(diagnosis)
    assert f"from 0 to {top:g}" in figure.caption
    assert ("1 cells marked + lie above (up to 9)" in figure.caption) == beyond
    key, heat, _ = panels(figure)
    assert [m.text for m in marks(heat, Label)] == (["+"] if beyond else [])
    assert any(m.text.startswith(f"{top:g}:") for m in marks(key, Label))


def test_damage_before_and_after_at_the_density_nearest_to_a_tenth():
    diagnosis = make_diagnosis()
    k = shown_density(diagnosis)
    assert abs(diagnosis.densities[k] - 0.1) == min(abs(diagnosis.densities - 0.1))
    _, _, damage = parts(diagnosis)
    for r, group in enumerate(grouped(damage).values()):
        before, after = (m for m in group.marks if isinstance(m, Dot))
        assert (before.x, before.y) == (diagnosis.raw[r, k], r)
        assert (after.x, after.y) == (diagnosis.residual[r, k], r)
        assert after.colour == ("red" if after.x > before.x else "blue")
    assert damage.x.scale.high >= max(diagnosis.raw[:, k].max(), diagnosis.residual[:, k].max())


def test_several_diagnoses_are_named():
    contents = Contents(diagnoses={"one": make_diagnosis(), "two": make_diagnosis()})
    found = list(figures(contents))
    assert [figure.key for figure in found] == ["repairability-1", "repairability-2"]
    assert [figure.title.rsplit(": ", 1)[1] for figure in found] == ["one", "two"]
    assert next(figures(Contents(diagnoses={"": make_diagnosis()}))).key == "repairability"


def test_nothing_defined():
    diagnosis = make_diagnosis()
    nothing = np.full_like(diagnosis.rr, np.nan)
    parts(dataclasses.replace(diagnosis, rr=nothing, raw=0 * diagnosis.raw, residual=0 * nothing))
