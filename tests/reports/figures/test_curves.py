import dataclasses

import numpy as np
from tests.reports.marks import marks, panels
from tests.reports.samples import make_diagnosis

from sparsemend.reports import Contents
from sparsemend.reports.drawing.figure import Area, Dot, Line
from sparsemend.reports.figures.curves import damage_curves, figures


def test_one_panel_a_layer_with_both_curves():
    diagnosis = make_diagnosis()
    figure = damage_curves(diagnosis)
    assert len(figure.plates) == len(diagnosis.layers)
    for index, panel in enumerate(panels(figure)):
        raw, left = marks(panel, Line)
        assert raw.points == tuple(zip(diagnosis.densities, diagnosis.raw[index], strict=True))
        assert left.points == tuple(
            zip(diagnosis.densities, diagnosis.residual[index], strict=True)
        )
        repaired, worse = marks(panel, Area)
        assert repaired.high == tuple(diagnosis.raw[index])
        assert all(a <= b for a, b in zip(repaired.low, repaired.high, strict=True))
        assert worse.low == tuple(diagnosis.raw[index])
        assert all(a <= b for a, b in zip(worse.low, worse.high, strict=True))
        dots = list(marks(panel, Dot))
        assert [(d.x, d.y) for d in dots] == list(left.points)
        for dot, before in zip(dots, diagnosis.raw[index], strict=True):
            assert (dot.colour == "red") == (dot.y > before)


def test_all_panels_share_axes_that_hold_everything():
    diagnosis = make_diagnosis()
    found = panels(damage_curves(diagnosis))
    assert len({(p.x.scale, p.y.scale) for p in found}) == 1
    highest = max(diagnosis.raw.max(), diagnosis.residual.max())
    assert 0 < found[0].y.scale.position(highest) <= 1
    assert found[0].x.scale.position(diagnosis.densities[0]) == 0
    assert found[0].x.scale.position(diagnosis.densities[-1]) == 1


def test_table_is_the_diagnosis():
    diagnosis = make_diagnosis()
    table = damage_curves(diagnosis).table
    assert table.columns == ("layer", "density", "raw", "residual", "rr")
    layers, *columns = zip(*table.rows, strict=True)
    assert layers == tuple(np.repeat(diagnosis.layers, 24))
    for name, column in zip(table.columns[2:], columns[1:], strict=True):
        np.testing.assert_array_equal(column, getattr(diagnosis, name).ravel())


def test_one_density_is_no_curve():
    one = dataclasses.replace(
        make_diagnosis(count=1), densities=np.array([0.1]), rr=np.ones((3, 1))
    )
    assert list(figures(Contents(diagnoses={"": one}))) == []
