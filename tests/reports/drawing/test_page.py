import base64
import csv
import hashlib
import io
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reports.marks import Page
from tests.reports.samples import (
    NASTY,
    make_ablation,
    make_allocation,
    make_compression,
    make_diagnosis,
    make_records,
)

import sparsemend as sm
from sparsemend.reports.drawing.figure import Axis, Dot, Figure, Panel, Plate, Table
from sparsemend.reports.drawing.page import page
from sparsemend.reports.drawing.palette import DARK, LIGHT
from sparsemend.reports.drawing.scale import Linear
from sparsemend.sweeps import SweepResult

LOADING = ("src", "href", "srcset", "data", "action", "formaction", "poster", "background")


def report_of_everything(names=("conv1", "layer1.0.conv1", "fc")):
    sizes = dict(zip(names, (100, 200, 700), strict=True))
    allocation = sm.Allocation(dict(zip(names, (40, 10, 50), strict=True)), sizes, "global")
    sweep = SweepResult((*make_records(networks=names[:2]), *make_ablation()))
    return sm.report(make_diagnosis(names), make_compression(allocation=allocation), sweep)


def tables(html):
    """The numbers of every figure, read back as a browser and a spreadsheet would."""
    texts = Page(html).texts["textarea"]
    return [list(csv.reader(io.StringIO(text.removeprefix("\n")))) for text in texts]


def test_every_figure_is_there_with_its_numbers():
    report = report_of_everything()
    html = report.html()
    found = [a for tag, a in Page(html).elements if tag == "section"]
    assert [a["id"] for a in found] == [figure.key for figure in report.figures]
    assert len({a["id"] for a in found}) == len(found) > 6
    for figure, table in zip(report.figures, tables(html), strict=True):
        assert table == list(csv.reader(io.StringIO(figure.table.csv())))
        assert len(table) == len(figure.table.rows) + 1
    drawings = [tag for tag, _ in Page(html).elements].count("svg")
    assert drawings == sum(len(figure.plates) for figure in report.figures)


@settings(max_examples=5)
@given(
    st.lists(
        st.text(min_size=1, max_size=12) | st.sampled_from(NASTY),
        min_size=3,
        max_size=3,
        unique=True,
    )
)
def test_names_stay_text(names):
    usual = Page(report_of_everything().html())
    html = report_of_everything(names).html()
    assert Page(html).shape == usual.shape
    html.encode()


def test_nasty_names_can_be_copied():
    report = sm.report(make_diagnosis(NASTY[:4]))
    for table in tables(report.html()):
        assert list(dict.fromkeys(row[0] for row in table[1:])) == list(NASTY[:4])


def test_it_loads_nothing():
    html = report_of_everything(NASTY[:3]).html()
    for tag, attributes in Page(html).elements:
        assert tag not in {"img", "iframe", "object", "embed", "base", "use", "image"}
        for name in LOADING:
            value = attributes.get(name)
            assert value is None or value.startswith("#") or value == "data:,", (tag, name)
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    for text in (*Page(html).texts["style"], *Page(html).texts["script"]):
        assert not re.search(r"@import|url\(|https?:|fetch\(|XMLHttp|innerHTML|eval\(", text)


def test_no_other_script_or_style_may_run():
    html = report_of_everything().html()
    found = Page(html)
    policy = next(
        a["content"] for tag, a in found.elements if a.get("http-equiv", "").startswith("Content-")
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        (text,) = found.texts[kind]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy


def test_themes_and_print():
    (style,) = Page(report_of_everything().html()).texts["style"]
    dark = re.search(r"@media screen and \(prefers-color-scheme:dark\)\{(.*?)\}\}", style).group(1)
    assert f"--ground:{DARK['ground']}" in dark
    assert f"--ground:{LIGHT['ground']}" in style
    printed = style[style.index("@media print") :]
    assert "break-inside:avoid" in printed
    assert "print-color-adjust:exact" in printed
    used = set(re.findall(r"var\(--([a-z0-9]+)\)", report_of_everything().html()))
    assert used <= LIGHT.keys()


def test_screen_readers_and_keyboards():
    found = Page(report_of_everything().html())
    for tag, attributes in found.elements:
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag == "textarea":
            assert attributes["aria-label"]
            assert "readonly" in attributes
    tags = [tag for tag, _ in found.elements]
    assert tags.count("h1") == 1
    assert tags.count("h2") == tags.count("section")
    assert tags.count("main") == 1
    assert ("html", {"lang": "en"}) in found.elements


def test_long_summaries_fold():
    figure = report_of_everything().figures[0]
    short = Page(page("t", "s", ["one", "two"], [figure]))
    assert short.texts["h1"] == ["one"]
    assert short.texts["li"] == ["two"]
    long = Page(page("t", "s", [str(k) for k in range(12)], [figure]))
    assert long.texts["li"] == [str(k) for k in range(1, 12)]
    assert "7 more findings" in long.texts["summary"]


def test_small_enough():
    layers = tuple(f"layer{s}.{b}.conv{c}" for s in (1, 2, 3) for b in range(10) for c in (1, 2))
    diagnosis = make_diagnosis(layers[:58])
    assert len(diagnosis.layers) >= 57
    rules = {f"rule{k}": 0.85 + k / 200 for k in range(5)}
    records = make_records(
        networks=("cifar10_resnet20", "cifar100_resnet20"),
        midpoints=rules,
        repairs=("batchnorm", "reconstruct"),
        seeds=range(2),
        sparsities=np.linspace(0.5, 0.97, 25).tolist(),
    )
    assert len(records) == 1000
    for source in (diagnosis, SweepResult(records)):
        assert len(sm.report(source, make_compression()).html().encode()) < 1_000_000


@pytest.mark.parametrize("count", [1, 3])
def test_one_figure_needs_no_list_of_figures(count):
    panel = Panel(Axis(Linear(0, 1)), Axis(Linear(0, 1)), (Dot(0, 0, "blue"),), 10, 10)
    figures = [
        Figure(f"f{k}", "F", "", (Plate(((panel,),), "d"),), Table(("x",), ((1,),)))
        for k in range(count)
    ]
    links = [a["href"] for tag, a in Page(page("t", "", ["s"], figures)).elements if tag == "a"]
    assert links == ([] if count == 1 else ["#f0", "#f1", "#f2"])


def test_allocations_alone():
    html = sm.report(make_allocation("erk", 40, 10, 50)).html()
    assert Page(html).texts["h1"] == ["How the budget is divided"]
