import csv
import io
import sys
import xml.etree.ElementTree as ET

import pytest
from tests.reports.samples import NASTY, make_diagnosis, make_records

import sparsemend as sm
from sparsemend.sweeps import SweepResult


def test_svg(tmp_path):
    report = sm.report(make_diagnosis(NASTY[:3]))
    files = report.save_figures(tmp_path / "made" / "here")
    assert [file.name for file in files] == ["repairability.svg", "damage.svg"]
    assert sorted(files) == sorted((tmp_path / "made" / "here").iterdir())
    for file in files:
        root = ET.fromstring(file.read_bytes())
        assert root.tag.endswith("}svg")
        assert "var(" not in file.read_text(encoding="utf-8")


def test_csv(tmp_path):
    records = make_records()
    report = sm.report(SweepResult(records))
    files = report.save_figures(tmp_path, "csv")
    assert [file.stem for file in files] == [figure.key for figure in report.figures]
    for file, figure in zip(files, report.figures, strict=True):
        header, *rows = csv.reader(io.StringIO(file.read_text(encoding="utf-8")))
        assert tuple(header) == figure.table.columns
        assert len(rows) == len(figure.table.rows)
    accuracy = next(file for file in files if file.stem == "accuracy")
    rows = csv.DictReader(io.StringIO(accuracy.read_text(encoding="utf-8")))
    expected = [pytest.approx(r.top1_repaired, rel=1e-8) for r in records]
    assert [float(row["top-1 repaired"]) for row in rows] == expected


def test_png(tmp_path):
    pytest.importorskip("resvg_py")
    image = pytest.importorskip("PIL.Image")
    report = sm.report(SweepResult(make_records()))
    svg, png = (report.save_figures(tmp_path, kind)[0] for kind in ("svg", "png"))
    assert png.name == "recovery.png"
    with image.open(io.BytesIO(png.read_bytes())) as picture:
        root = ET.fromstring(svg.read_bytes())
        assert picture.width == pytest.approx(2 * float(root.get("width")), abs=2)
        colours = picture.convert("RGB").getcolors(1 << 20)
        counts = sorted(colours, reverse=True)
    assert counts[0][1] == (255, 255, 255)
    assert (0x00, 0x68, 0xA8) in {colour for _, colour in colours}  # a curve was drawn


def test_png_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    report = sm.report(make_diagnosis())
    with pytest.raises(
        sm.SparsemendError, match=r"not installed; pip install 'sparsemend\[figures\]'"
    ):
        report.save_figures(tmp_path / "new", "png")
    assert not (tmp_path / "new").exists()


def test_bad_input(tmp_path):
    report = sm.report(make_diagnosis())
    with pytest.raises(sm.SparsemendError, match="unknown format of a figure: got 'pdf'"):
        report.save_figures(tmp_path, "pdf")
    (tmp_path / "file").write_text("")
    with pytest.raises(sm.SparsemendError, match="the folder for figures cannot be made"):
        report.save_figures(tmp_path / "file")
