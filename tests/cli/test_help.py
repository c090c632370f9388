import re
import subprocess
import sys

import pytest

import sparsemend
from sparsemend.cli import app

COMMANDS = [command.callback.__name__ for command in app.registered_commands]


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_commands():
    assert COMMANDS == [
        "evaluate",
        "diagnose",
        "allocate",
        "compress",
        "export",
        "bench",
        "sweep",
        "ablate",
        "report",
        "demo",
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(run, command):
    result = run(command, "--help")
    assert result.exit_code == 0
    text = plain(result.stdout)
    assert f"Example: sparsemend {command} " in " ".join(text.split())
    assert "--json" in text


def test_help_has_a_short_name(run):
    assert "--help" in plain(run("evaluate", "-h").stdout)


def test_without_a_command_there_is_help(run):
    result = run()
    assert "Prune a trained network very hard without labels" in result.output
    assert all(command in result.output for command in COMMANDS)


def test_version(run):
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"sparsemend {sparsemend.__version__}\n")


@pytest.mark.parametrize("arguments", [("prune",), ("compress", "--speed", "9"), ("allocate",)])
def test_misuse(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr


@pytest.mark.usefixtures("digits_cache")
def test_as_a_program(tmp_path):
    program = [sys.executable, "-m", "sparsemend"]
    arguments = ["allocate", "--model", "digits", "--sparsity", "0.9", "--rule", "erk"]
    result = subprocess.run([*program, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("rule erk, sparsity 0.9")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["allocate", "compress", "sweep"])
def test_help_names_every_rule(run, command):
    text = run(command, "--help").stdout
    for name in sparsemend.rule_names():
        assert re.search(rf"[ \n]{re.escape(name)}[,.; ]", text), name


@pytest.mark.parametrize("command", ["sweep", "ablate"])
def test_a_range_is_no_picture(run, command):
    assert "start:end:step with both ends" in plain(run(command, "--help").stdout)


@pytest.mark.parametrize("command", COMMANDS)
def test_no_help_has_pictures_or_markup(run, command):
    text = plain(run(command, "--help").stdout)
    assert not re.search(r"[\U0001f000-\U0001ffff]|\[/", text)


def test_as_a_module_it_bears_its_name():
    command = [sys.executable, "-m", "sparsemend", "--help"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr) == (0, "")
    assert "Usage: sparsemend [OPTIONS]" in plain(result.stdout)
