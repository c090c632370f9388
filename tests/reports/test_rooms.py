"""Who imports whom among the rooms of the reports."""

import ast
from pathlib import Path

import pytest

from sparsemend import reports

FOLDER = Path(reports.__file__).parent
ROOMS = ("drawing", "figures", "words")
ABOVE = ("compare", "compose", "sources")


def imports(path):
    """Names below ``sparsemend.reports`` that a file imports from, dotted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sparsemend.rep"):
            yield (node.module or "").removeprefix("sparsemend.reports").lstrip(".")


@pytest.mark.parametrize("room", ROOMS)
def test_no_room_imports_another_but_drawing(room):
    for path in (FOLDER / room).glob("*.py"):
        for name in imports(path):
            first, *rest = name.split(".")
            assert first not in ABOVE, path
            if first in ROOMS:
                assert first in (room, "drawing"), path
            elif room == "drawing":
                pytest.fail(f"{path} imports {name}")
            if any(part.startswith("_") for part in rest):
                assert first == room, path


def test_what_the_rooms_stand_on_imports_drawing_alone():
    for path in FOLDER.glob("*.py"):
        if path.stem in ("__init__", *ABOVE):
            continue
        rooms = {name.split(".")[0] for name in imports(path)} & set(ROOMS)
        assert rooms <= {"drawing"}, path
