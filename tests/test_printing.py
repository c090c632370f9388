"""Names from files reach a terminal as text alone, whatever is printed."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.reports.samples import make_diagnosis, make_records
from torch import nn
from typer.testing import CliRunner

import sparsemend as sm
from sparsemend.cli import app
from sparsemend.errors import SparsemendError, SparsemendWarning, printable
from sparsemend.sweeps import Failure, SweepResult

# Clear the screen, a new title, a line of its own, C1 controls, text from right to left.
EVIL = "conv\x1b[2J\x1b]0;x\x07\nall is well\r\x9b1A\u202e"
HARMLESS = "conv\\x1b[2J\\x1b]0;x\\x07\\nall is well\\r\\x9b1A\\u202e"


def is_plain(text):
    return all(line.isprintable() for line in text.replace("\xa0", " ").split("\n"))


@given(st.text())
def test_printable_text_is_one_line_that_does_nothing(text):
    shown = printable(text)
    assert is_plain(shown)
    assert (shown == text) == text.replace("\xa0", " ").isprintable()
    assert printable(text, keep="\n").count("\n") == text.count("\n")


def allocation():
    return sm.Allocation({EVIL: 1, "fc": 2}, {EVIL: 2, "fc": 4}, rule=EVIL)


def compression():
    model = nn.Sequential()
    model.add_module(EVIL, nn.Linear(3, 3, bias=False))
    model.add_module("fc", nn.Linear(3, 2))
    return sm.compress(model, torch.randn(30, 3), 0.5, "auto", repair="variance", budget=2)


def sweep():
    records = make_records(networks=(EVIL,), midpoints={EVIL: 0.9, "erk": 0.86})
    return SweepResult(records, failures=(Failure(records[0].cell, "no", None),))


PRINTED = {
    "diagnosis": lambda: make_diagnosis((EVIL, "fc")),
    "allocation": allocation,
    "compression": compression,
    "search": lambda: compression().search,
    "sweep": sweep,
    "report": lambda: sm.report(make_diagnosis((EVIL, "fc"))),
    "report of a sweep": lambda: sm.report(sweep()),
    "report of an allocation": lambda: sm.report(allocation()),
}


@pytest.mark.filterwarnings("ignore::sparsemend.errors.SparsemendWarning")
@pytest.mark.parametrize("what", PRINTED)
def test_what_is_printed_is_text(what):
    text = str(PRINTED[what]())
    assert is_plain(text)
    assert "\nall is well" not in text


def test_tables_are_as_wide_as_what_they_show():
    head, *rows = str(make_diagnosis((EVIL, "fc"))).split("\n")[1:]
    assert rows[0].startswith(HARMLESS)
    assert len({len(row) for row in rows}) == 1
    assert head.index("%") == rows[0].index("(") + rows[0][rows[0].index("(") :].index(")")


def test_errors_and_warnings_are_text():
    error = str(SparsemendError(f"layer {EVIL}", EVIL, EVIL, EVIL))
    assert is_plain(error)
    assert is_plain(str(SparsemendWarning(EVIL)))
    assert str(SparsemendError("two\nlines")) == "two\nlines"


def test_the_report_command_prints_text(tmp_path):
    make_diagnosis((EVIL, "fc")).save(tmp_path / "d.json")
    (tmp_path / "a.json").write_text(json.dumps(allocation().to_dict()))
    done = CliRunner().invoke(
        app, ["report", *(str(tmp_path / name) for name in ("d.json", "a.json"))]
    )
    assert done.exit_code == 0, done.output
    assert is_plain(done.output)


def test_formulas_are_neutralised_in_every_table(tmp_path):
    name = "=cmd|' /C calc'!A0"
    records = make_records(networks=(name,))
    SweepResult(records).to_csv(tmp_path / "s.csv")
    sm.report(make_diagnosis((name, "fc"))).save_figures(tmp_path, "csv")
    sm.report(SweepResult(records)).save_figures(tmp_path, "csv")
    tables = [path.read_text(encoding="utf-8") for path in tmp_path.glob("*.csv")]
    assert len(tables) > 3
    for table in tables:
        assert f"\n{name}" not in table
        assert f",{name}" not in table
    assert any(f"'{name}" in table for table in tables)
