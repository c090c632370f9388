"""What the site's build adds to its pages: the reference of commands, from the commands."""

from __future__ import annotations

import re
from typing import Any

import typer

import sparsemend.cli

_PLACE = "{{ commands }}"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the reference of every command in its place."""
    return markdown.replace(_PLACE, reference()) if _PLACE in markdown else markdown


def reference() -> str:
    """Every command with what it does, an example, and its options."""
    program: Any = typer.main.get_command(sparsemend.cli.make_app())
    return "\n".join(_section(name, command) for name, command in program.commands.items())


def _section(name: str, command: Any) -> str:
    text, _, example = str(command.help).partition("Example:")
    rows = "\n".join(
        f"| `{' '.join(parameter.opts)}` | {_plain(getattr(parameter, 'help', '') or '')} |"
        for parameter in command.params
    )
    shown = " ".join(example.split())
    return (
        f"## sparsemend {name}\n\n{_plain(text)}\n\n```sh\n{shown}\n```\n\n"
        f"| option | |\n|---|---|\n{rows}\n"
    )


def _plain(text: str) -> str:
    """Help without rich's markup, in one line of a table."""
    text = re.sub(r"\[/?none\]", "", text)
    return " ".join(text.split()).replace("|", "\\|").replace("[", "\\[")
