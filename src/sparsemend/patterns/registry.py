"""The known kinds of patterns; to add one, write a file for it and enter it here."""

from __future__ import annotations

from sparsemend.errors import SparsemendError, printable
from sparsemend.patterns.block import Block
from sparsemend.patterns.channel import Channel
from sparsemend.patterns.free import FREE, Free
from sparsemend.patterns.n_of_m import AnyOfM, NOfM
from sparsemend.patterns.pattern import Pattern

PATTERNS: list[type[Pattern]] = [Free, NOfM, AnyOfM, Block, Channel]


def pattern_spellings() -> tuple[str, ...]:
    """How patterns are written."""
    return tuple(kind.spelling for kind in PATTERNS)


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text means.

    Raises
    ------
    SparsemendError
        If it means none; says how they are written.

    Examples
    --------
    >>> parse_pattern("2:4").density, parse_pattern("block:1x4").name
    (Fraction(1, 2), 'block:1x4')
    """
    if isinstance(text, str):
        for kind in PATTERNS:
            found = kind.read(text.strip())
            if found is not None:
                return found
    raise SparsemendError("unknown pattern", text, ", ".join(pattern_spellings()))


def patterned(name: str) -> str:
    """What is said of a pattern behind the mask; nothing where any weights can be kept."""
    return "" if name == FREE.name else f" in pattern {printable(name)}"
