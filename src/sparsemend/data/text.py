"""Texts: the lines of a ``.txt`` file, or columns of a ``.csv``, ``.tsv`` or parquet file.

The network's own tokenizer makes them batches, padded to the longest and with an attention mask.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from sparsemend.data._split import TRAIN, Batch, Split, split_name
from sparsemend.data._wants import Wants, text_lines
from sparsemend.errors import SparsemendError

SUFFIXES = (".txt", ".csv", ".tsv")
# What a column of texts is called; the first that is there is used.
_NAMES = ("text", "sentence", "content", "document", "query", "question")
# Tokenizers that know no limit say so by a huge number.
_LONGEST = 512

# One text, or a pair for networks that compare two.
Text = str | tuple[str, ...]


def read_text(path: Path, wants: Wants) -> dict[str, Split]:
    """Return the split of a file of texts.

    Raises
    ------
    SparsemendError
        If the network has no tokenizer, the file cannot be read or has no texts.
    """
    texts = text_lines(path) if path.suffix == ".txt" else _table(path, wants.columns)
    return {split_name(path.stem) or TRAIN: TextSplit(texts, wants.tokenizer, str(path))}


class TextSplit:
    """Texts, turned to tensors when asked for.

    Parameters
    ----------
    texts
        One input each.
    tokenizer
        As of transformers.
    source
        Where they are from, for errors' texts.
    """

    is_images = False
    labels = None

    def __init__(self, texts: Sequence[Text], tokenizer: Any, source: str) -> None:
        if not texts:
            raise SparsemendError(f"{source!r} has no texts")
        if tokenizer is None:
            raise SparsemendError(
                f"{source!r} holds texts, and the network came without a tokenizer",
                fix="load it as hf:FOLDER, or name the folder of one with --tokenizer",
            )
        self._texts, self._tokenizer, self._source = texts, tokenizer, source

    def __len__(self) -> int:
        return len(self._texts)

    def inputs(self, rows: Sequence[int]) -> Batch:
        chosen = [self._texts[row] for row in rows]
        if isinstance(chosen[0], tuple):
            columns = [list(column) for column in zip(*chosen, strict=True)]
        else:
            columns = [chosen]
        longest = min(int(getattr(self._tokenizer, "model_max_length", _LONGEST)), _LONGEST)
        try:
            found = self._tokenizer(
                *columns, padding=True, truncation=True, max_length=longest, return_tensors="pt"
            )
        except Exception as error:  # of any kind: a tokenizer without a padding token, too many
            raise SparsemendError(
                f"the tokenizer cannot read {self._source!r} ({type(error).__name__}: {error})",
                fix="a tokenizer needs a padding token; two columns need one that takes pairs",
            ) from error
        return dict(found)


def choose_columns(
    names: Sequence[str], wanted: Sequence[str], texts: Sequence[str], *, source: str
) -> list[str]:
    """The columns of a table that are meant.

    Parameters
    ----------
    names
        All columns.
    wanted
        What was asked for.
    texts
        The columns that hold texts: without a wish it is the one with a usual name, or the only
        one.
    source
        For errors' texts.
    """
    strange = [name for name in wanted if name not in names]
    usual = [name for name in _NAMES if name in texts][:1] or list(texts)
    if strange or not (wanted or len(usual) == 1):
        raise SparsemendError(
            f"which column of {source!r} holds the texts is not known",
            strange[0] if strange else list(texts),
            ", ".join(names),
            "name it with --column, twice for pairs",
        )
    return list(wanted) or usual


def as_texts(rows: Iterable[Sequence[Any]]) -> list[Text]:
    """Rows of columns as texts or pairs; rows that lack one are left out."""
    return [
        row[0] if len(row) == 1 else tuple(row)
        for row in rows
        if all(isinstance(part, str) and part.strip() for part in row)
    ]


def _table(path: Path, wanted: Sequence[str]) -> list[Text]:
    """The texts of a table whose first row names its columns, or of columns by number."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ","))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SparsemendError(f"table {str(path)!r} cannot be read ({error})") from error
    rows = [row for row in rows if row]
    if not rows:
        return []
    numbers = [str(number) for number in range(len(rows[0]))]
    numbered = set(wanted) <= set(numbers) if wanted else len(rows[0]) == 1
    names = numbers if numbered and rows[0][0] not in _NAMES else rows[0]
    chosen = choose_columns(names, wanted, names, source=str(path))
    places = [names.index(name) for name in chosen]
    body = rows[1:] if names is rows[0] else rows
    return as_texts([[row[i] if i < len(row) else "" for i in places] for row in body])
