"""What a network wants of the data, as far as the formats have to know it; and lines of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError


@dataclass(frozen=True)
class Wants:
    """What inputs become before the network gets them.

    Attributes
    ----------
    preprocessing
        Of images.
    tokenizer
        Texts → tensors; None where the network has none.
    columns
        Names of the columns of texts in a table, or their numbers from 0 where it has no names;
        two for pairs. Empty: the one that is meant.
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    tokenizer: Any = None
    columns: Sequence[str] = ()


def text_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises
    ------
    SparsemendError
        If it cannot be read as UTF-8.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise SparsemendError(f"text file {str(path)!r} cannot be read ({error})") from error
    return [line.strip() for line in lines if line.strip()]
