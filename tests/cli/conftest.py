"""Running commands in this process, and what they printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sparsemend.cli import app

Run = Callable[..., Any]


@pytest.fixture
def run(digits_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:  # noqa: ARG001
    """Run a command in an empty folder; returns exit_code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(part) for part in arguments])


@pytest.fixture
def run_json(run: Run) -> Run:
    """Run a command with --json and read its one object."""

    def read(*arguments: object) -> dict[str, Any]:
        result = run(*arguments, "--json")
        assert result.exit_code == 0, result.stderr
        assert result.stdout.count("\n") == 1
        values = json.loads(result.stdout, parse_constant=pytest.fail)  # no NaN, no Infinity
        assert isinstance(values, dict)
        return values

    return read


@pytest.fixture
def refused(run: Run, tmp_path: Path) -> Run:
    """Run a command that must fail: exit code 2, one line of error, nothing written."""

    def read(*arguments: object) -> str:
        before = sorted(tmp_path.rglob("*"))
        result = run(*arguments)
        assert result.exit_code == 2, result.output
        assert result.stdout == ""
        lines = result.stderr.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0].removeprefix("error: ")

    return read
