"""The notebooks run from top to bottom, on small data and with little time."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

import sparsemend as sm

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
NEEDS = {"timm_network": "timm", "sentence_encoder": "transformers"}


def cells(path: Path) -> list[dict]:
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def run(path: Path) -> list[object]:
    """Run every cell in one namespace; what the last lines of the cells show."""
    names, shown = {}, []
    for number, cell in enumerate(cells(path)):
        if cell["cell_type"] != "code":
            continue
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        where = f"{path.name}, cell {number}"
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            shown.append(eval(compile(ast.Expression(last.value), where, "eval"), names))
    return shown


@pytest.mark.filterwarnings("ignore::sparsemend.SparsemendWarning")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_run(path, digits_cache, tmp_path, monkeypatch):  # noqa: ARG001
    if path.stem in NEEDS:
        pytest.importorskip(NEEDS[path.stem])
    monkeypatch.chdir(tmp_path)
    compress = sm.compress

    def quickly(*args, **options):
        return compress(*args, **({**options, "budget": "1s"} if "budget" in options else options))

    monkeypatch.setattr(sm, "compress", quickly)
    rich = [value for value in run(path) if hasattr(value, "_repr_html_")]
    assert any(isinstance(value, sm.CompressionResult) for value in rich)
    assert all(value._repr_html_() for value in rich)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_they_are_kept_without_outputs(path):
    for cell in cells(path):
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_every_notebook_is_linked():
    page = (NOTEBOOKS[0].parents[1] / "quickstart.md").read_text(encoding="utf-8")
    assert all(f"](notebooks/{path.name})" in page for path in NOTEBOOKS)
