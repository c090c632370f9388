"""What the build of the documents adds to them."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from sparsemend.cli import app

DOCS = Path(__file__).parents[1] / "docs"


def load_hooks():
    spec = importlib.util.spec_from_file_location("hooks", DOCS / "hooks.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_is_in_the_reference():
    page = (DOCS / "command-line.md").read_text(encoding="utf-8")
    built = load_hooks().on_page_markdown(page)
    for command in app.registered_commands:
        assert f"\n## sparsemend {command.callback.__name__}\n" in built
    rows = re.findall(r"^\| `(--[\w-]+)", built, re.M)
    assert {"--model", "--sparsity", "--budget", "--plan", "--model-arg"} <= set(rows)
    assert "{{" not in built
    assert load_hooks().on_page_markdown("nothing") == "nothing"


def test_every_page_is_in_the_navigation():
    text = (DOCS.parent / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text))
    assert named == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
