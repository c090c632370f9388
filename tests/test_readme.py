"""What README.md and the documents show works: the Python code, and every option of a command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer

import sparsemend as sm
from sparsemend.cli import app

REPOSITORY = Path(__file__).parents[1]
TEXTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

# What takes minutes is asked for less.
SMALLER = {
    "(model, batches, 0.95)  # all": '(model, batches, 0.95, budget=1, repair="variance")  # all',
    '"0.80:0.98:0.01", rules=["erk", "rr"]': '[0.9, 0.95], rules=["erk"], repairs="variance"',
    '"cifar10"': '"digits"',
}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """The command lines that run sparsemend."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("sparsemend") + 1 :] for line in words if "sparsemend" in line]


def test_the_python_code_runs(digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = blocks(REPOSITORY / "README.md", "python")
    for shown, smaller in SMALLER.items():
        assert code.count(shown) == 1
        code = code.replace(shown, smaller)
    loaded = sm.models.load("digits")
    names = {
        "model": digits.model,
        "batches": digits.calibration,
        "labelled_batches": digits.test,
        "mean": loaded.mean,
        "std": loaded.std,
    }
    exec(compile(code, "README.md", "exec"), names)
    assert capsys.readouterr().out
    assert (tmp_path / "sparse.safetensors").is_file()


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_commands_have_the_options_that_are_shown(path):
    known = typer.main.get_command(app).commands
    for block in blocks(path, "sh"):
        for name, *rest in commands(block):
            options = {option for parameter in known[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= {*options, "--help"}
