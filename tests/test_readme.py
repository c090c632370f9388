"""What README.md and the documents show works: the Python code, and every option of a command."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
import typer
from torch import nn

import sparsemend as sm
from sparsemend.cli import app

REPOSITORY = Path(__file__).parents[1]
TEXTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]

# What takes minutes is asked for less.
SMALLER = {
    '"0.80:0.98:0.01", rules=["erk", "rr"]': '[0.9, 0.95], rules=["erk"], repairs="variance"',
    '"cifar10"': '"digits"',
    'budget="1min"': 'budget="1s"',
}


class Denoiser(nn.Module):
    """A network with two inputs, for the page of recipes."""

    def __init__(self):
        super().__init__()
        self.first, self.middle = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 3, 3, padding=1)

    def forward(self, x, t):
        return self.last(self.middle(self.first(x).relu() + t.view(-1, 1, 1, 1)).relu())


class Detector(nn.Module):
    """A network whose output has several parts, for the same page."""

    def __init__(self):
        super().__init__()
        self.trunk, self.boxes = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 1)
        self.scores = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.trunk(x).relu()
        return {"boxes": self.boxes(x), "scores": self.scores(x)}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """The command lines that run sparsemend."""
    lines = text.replace("\\\n", " ").splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    return [line[line.index("sparsemend") + 1 :] for line in words if "sparsemend" in line]


PYTHON = [path for path in TEXTS if blocks(path, "python")]


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
@pytest.mark.parametrize("path", PYTHON, ids=lambda path: path.stem)
def test_the_python_code_runs(path, digits, tmp_path, monkeypatch):
    """The code of a page, one block after the other; blocks with a title are not run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sparsemend.recipe.recipe.PLANNED_TIME", "1s")
    torch.manual_seed(0)
    loaded = sm.models.load("digits")
    names = {
        "sm": sm,
        "model": digits.model,
        "fresh_model": loaded.model,
        "batches": digits.calibration,
        "labelled_batches": digits.test,
        "mean": loaded.mean,
        "std": loaded.std,
        "unet": Denoiser().eval(),
        "pairs": [(torch.randn(8, 3, 8, 8), torch.rand(8)) for _ in range(5)],
        "detector": Detector().eval(),
        "decoder": nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 7)),
        "token_ids": torch.randint(7, (300,)),
        "held_out": torch.randint(7, (4, 20)),
        "images": list(torch.randn(40, 3, 8, 8).split(8)),
    }
    for code in blocks(path, "python"):
        for shown, smaller in SMALLER.items():
            code = code.replace(shown, smaller)
        exec(compile(code, path.name, "exec"), names)


def test_what_takes_long_is_still_there():
    text = "".join(path.read_text(encoding="utf-8") for path in TEXTS)
    assert all(shown in text for shown in SMALLER)


def test_links_lead_somewhere():
    for path in TEXTS:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8")):
            assert "://" in target or (path.parent / target).exists(), f"{path.name}: {target}"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_commands_have_the_options_that_are_shown(path):
    known = typer.main.get_command(app).commands
    for block in blocks(path, "sh"):
        for name, *rest in commands(block):
            options = {option for parameter in known[name].params for option in parameter.opts}
            assert {word for word in rest if word.startswith("--")} <= {*options, "--help"}
