"""Commands are made from their options."""

import dataclasses
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from sparsemend import SparsemendError
from sparsemend.allocation import RULES
from sparsemend.cli import make_app
from sparsemend.cli._command import Argument, Given, command
from sparsemend.recipe.options import Option

SIZE = Option("size", int, "Default {default}.", 3)
OPTIONS = (
    Argument("files", Path, "Files.", required=True, several=True),
    SIZE,
    Option("names", str, "Of {choices}.", choices=lambda: ("x", "y"), several=True),
    Option("source", str, "From.", flag="--from"),
    Option("dry_run", bool, "Nothing.", False),
)


@pytest.fixture
def run():
    """Run a command with these options; returns what it was given, and the result."""
    seen = []

    @command(*OPTIONS)
    def example(given):
        """Do it."""
        seen.append(given)
        if given.size < 0:
            raise SparsemendError("the size is negative")

    app = typer.Typer()
    app.command()(example.function())

    def call(*arguments):
        result = CliRunner().invoke(app, arguments)
        return (seen.pop().values if seen else None), result

    return call


def test_values(run):
    defaults = {"size": 3, "names": None, "source": None, "dry_run": False, "json": False}
    assert run("a")[0] == {**defaults, "files": [Path("a")]}
    values, _ = run("a", "b", "--names", "x", "--names", "y", "--from", "c", "--dry-run", "--json")
    assert values == {
        **defaults,
        "files": [Path("a"), Path("b")],
        "names": ["x", "y"],
        "source": "c",
        "dry_run": True,
        "json": True,
    }


def test_misuse(run):
    for arguments in ((), ("a", "--size", "many"), ("a", "--no-dry-run"), ("a", "--source", "b")):
        values, result = run(*arguments)
        assert (values, result.exit_code) == (None, 2)


def test_errors_are_friendly(run):
    _, result = run("a", "--size", "-1")
    assert (result.exit_code, result.stderr) == (2, "error: the size is negative\n")


def test_help(run):
    _, result = run("--help")
    for text in ("Do it.", "Default 3.", "[default: 3]", "Of x, y.", "--from"):
        assert text in result.stdout


def test_the_last_of_one_name_counts_at_the_place_of_the_first():
    made = command(*OPTIONS, SIZE.but(default=7))(lambda _: None)
    assert [option.name for option in made.options] == [
        *("files", "size", "names", "source", "dry_run", "json"),
    ]
    assert made.options[1].default == 7


def test_given():
    given = Given.of([SIZE, OPTIONS[3]], {"source": "a", "other": 1})
    assert (given.size, given.source) == (3, "a")
    assert given.only([SIZE]) == {"size": 3}
    with pytest.raises(AttributeError, match="no option 'other'"):
        _ = given.other
    with pytest.raises(dataclasses.FrozenInstanceError):
        given.values = {}


@pytest.mark.parametrize("name", ["allocate", "compress", "sweep"])
def test_help_names_rules_that_are_registered_later(monkeypatch, name):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setitem(RULES, "mine", dataclasses.replace(RULES["erk"], name="mine"))
    result = CliRunner().invoke(make_app(), [name, "--help"])
    assert re.search(r" mine[,.;]", result.stdout)
