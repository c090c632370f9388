"""Rows of finished work in a JSON-lines file, so that a killed benchmark resumes.

For what no sweep computes, such as the algorithms of others; a grid of our own rules and repairs
is a sweep, with the store of sweeps.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def commit() -> str:
    """The commit that is checked out, with a + where the tree differs from it."""
    described = ["git", "describe", "--always", "--dirty=+", "--abbrev=10"]
    done = subprocess.run(described, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class Store:
    """Results by key; ``compute`` runs what is missing and appends it at once."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue  # cut off by a kill: this row is computed again
            self.rows[_key(row["cell"])] = row

    def compute(
        self, cell: Mapping[str, Any], work: Callable[[], Mapping[str, Any]]
    ) -> dict[str, Any]:
        """The result of a cell, from the file or by ``work``."""
        key = _key(cell)
        if key not in self.rows:
            row = {"cell": dict(cell), "result": dict(work()), "commit": commit()}
            with self.path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            self.rows[key] = row
            print(json.dumps(row), flush=True)
        result: dict[str, Any] = self.rows[key]["result"]
        return result


def _key(cell: Mapping[str, Any]) -> str:
    return json.dumps(cell, sort_keys=True)
