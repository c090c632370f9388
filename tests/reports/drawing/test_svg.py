import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.reports.samples import NASTY

from sparsemend.reports.drawing.figure import (
    Area,
    Axis,
    Box,
    Dot,
    Group,
    Label,
    Line,
    Panel,
    Plate,
)
from sparsemend.reports.drawing.layout import layout
from sparsemend.reports.drawing.scale import Categories, Linear
from sparsemend.reports.drawing.svg import svg, svg_file

NAMESPACE = "{http://www.w3.org/2000/svg}"


def plate_of(*marks, x=None, y=None, **options):
    x, y = x or Axis(Linear(0, 10), "x"), y or Axis(Linear(0, 1), "y")
    return Plate(((Panel(x, y, marks, 200, 100, **options),),), "a drawing")


def parse(text):
    return ET.fromstring(text)


@given(st.floats(0, 10), st.floats(0, 1))
def test_a_dot_lies_where_its_value_is(x, y):
    plate = plate_of(Dot(x, y, "blue", tip="here"))
    circle = parse(svg(plate)).find("circle")
    (frame,) = layout(plate).frames
    panel = frame.panel
    back_x = panel.x.scale.value((float(circle.get("cx")) - frame.left) / panel.width)
    back_y = panel.y.scale.value(1 - (float(circle.get("cy")) - frame.top) / panel.height)
    assert back_x == pytest.approx(x, abs=10 / 200 * 0.06)
    assert back_y == pytest.approx(y, abs=1 / 100 * 0.06)
    assert circle.findtext("title") == "here"


def test_names_run_downward_and_values_upward():
    names = Axis(Categories(("first", "second")))
    (frame,) = layout(plate_of(y=names)).frames
    assert frame.y(0) < frame.y(1)
    (frame,) = layout(plate_of()).frames
    assert frame.y(0) > frame.y(1)


def test_lines_break_where_a_value_is_missing():
    drawing = svg(plate_of(Line(((0, 0), (1, 1), (2, math.nan), (3, 0), (4, 1)), "blue")))
    (path,) = re.findall(r'<path d="([^"]*)" fill="none" stroke="var\(--blue\)"', drawing)
    assert (path.count("M"), path.count("L")) == (2, 2)


def test_areas_break_where_a_value_is_missing():
    area = Area((0, 1, 2, 3, 4), (0, 0, math.nan, 0, 0), (1, 1, 1, 1, math.inf), "blue")
    (path,) = re.findall(r'<path d="([^"]*)" fill="var\(--blue\)"', svg(plate_of(area)))
    assert (path.count("M"), path.count("L"), path.count("Z")) == (2, 4, 2)


@pytest.mark.parametrize("missing", [math.nan, math.inf, -math.inf])
def test_marks_without_a_place_are_not_drawn(missing):
    kept = Dot(1, 0.5, "blue")
    lost = (Dot(missing, 0, "blue"), Box(0, 1, 0, missing, "red"), Label(0, missing, "text"))
    assert svg(plate_of(kept, *lost)) == svg(plate_of(kept))


@pytest.mark.parametrize("shape", ["circle", "square", "diamond", "triangle", "bar"])
def test_shapes_are_drawn(shape):
    drawing = parse(svg(plate_of(Dot(5, 0.5, "red", shape, hollow=True, tip="t"))))
    (found,) = [e for e in drawing.iter() if e.findtext("title") == "t"]
    assert found.get("stroke") == "var(--red)"
    assert found.get("fill") == "var(--ground)"


def test_panels_of_a_column_are_aligned():
    wide = Panel(Axis(Linear(0, 1)), Axis(Categories(("a very long name",))), (), 100, 20)
    plain = Panel(Axis(Linear(0, 1)), Axis(Linear(0, 1), labels=False), (), 100, 50)
    placed = layout(Plate(((wide, plain), (None, plain), (plain, None)), "d", title="t"))
    lefts = [frame.left for frame in placed.frames]
    assert lefts[0] == lefts[3]
    assert lefts[1] == lefts[2]
    tops = [frame.top for frame in placed.frames]
    assert tops[0] == tops[1] < tops[2] < tops[3]
    for frame in placed.frames:
        assert 0 <= frame.left < frame.left + frame.panel.width <= placed.width
        assert 0 <= frame.top < frame.top + frame.panel.height <= placed.height


def all_marks(text):
    return (
        Line(((0, 0), (1, 1)), "blue", dash="4 3"),
        Area((0, 1), (0, 0), (1, 1), "red"),
        Box(0, 1, 0, 1, "green", opacity=0.5, outline="ink", tip=text),
        Label(0, 0, text),
        Group(text, (Dot(1, 1, "blue", tip=text), Label(1, 1, text, bold=True))),
    )


@pytest.mark.parametrize("text", NASTY)
def test_text_stays_text(text):
    axis = Axis(Categories((text,)), title=text)
    nasty = Plate(((Panel(axis, axis, all_marks(text), 90, 30, title=text),),), text, title=text)
    harmless = Plate(
        ((Panel(axis, axis, all_marks("name"), 90, 30, title="name"),),), "n", title="name"
    )
    for draw in (svg, lambda plate: svg_file([plate], 1)):
        one, two = parse(draw(nasty)), parse(draw(harmless))
        assert [e.tag for e in one.iter()] == [e.tag for e in two.iter()]
        assert [sorted(e.keys()) for e in one.iter()] == [sorted(e.keys()) for e in two.iter()]


def test_a_file_has_colours_and_no_variables():
    drawing = svg_file([plate_of(*all_marks("x"))] * 5, columns=2)
    assert "var(" not in drawing
    assert "url(" not in drawing
    root = parse(drawing.split("\n", 1)[1])
    assert root.tag == f"{NAMESPACE}svg"
    assert len(root.findall(f"{NAMESPACE}g")) == 5
    width, height = float(root.get("width")), float(root.get("height"))
    one = layout(plate_of(*all_marks("x")))
    assert width > 2 * one.width
    assert height > 3 * one.height


def test_the_page_and_the_file_draw_the_same():
    plate = plate_of(*all_marks("x"))
    paths = [re.findall(r' d="([^"]*)"', text) for text in (svg(plate), svg_file([plate], 1))]
    assert paths[0] == paths[1]
