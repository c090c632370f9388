"""Parquet files in the image layout of Hugging Face data sets, or with columns of texts.

A struct column holds every image's encoded ``bytes``, an integer column its label. The split is
chosen by how the file name begins: ``train-00000-of-00004.parquet``.
"""

from __future__ import annotations

import io
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsemend.data._decode import Decoder, evenly
from sparsemend.data._split import TRAIN, Split, check_labels, split_name
from sparsemend.data._wants import Wants
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.data.text import Text, TextSplit, as_texts, choose_columns
from sparsemend.errors import SparsemendError
from sparsemend.imports import require

# The first that is there is used: CIFAR-100 has both fine and coarse labels.
IMAGE_COLUMNS = ("img", "image")
LABEL_COLUMNS = ("fine_label", "label", "labels")


def parquet_files(path: Path) -> list[Path]:
    """Return the parquet files of a folder, or of its ``data`` folder, in the order of names.

    A file alone is one itself.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted(path.glob("data/*.parquet"))


def read_parquet(path: Path, wants: Wants | None = None) -> dict[str, Split]:
    """Return the splits of a folder of parquet files, of images or else of texts.

    Files whose names begin with the word for no split are left out.

    Raises
    ------
    SparsemendError
        If no file belongs to a split, or a file is damaged or has no column of images.
    """
    shards: defaultdict[str, list[Path]] = defaultdict(list)
    files = parquet_files(path)
    for file in files:
        first_word = re.match("[A-Za-z]*", file.name)
        split = split_name(first_word[0]) if first_word else None
        if split is None and path.is_file():
            split = TRAIN
        if split is not None:
            shards[split].append(file)
    if not shards:
        raise SparsemendError(
            f"the parquet files in {str(path)!r} name no split",
            [file.name for file in files[:3]],
            "names that begin with the word train, test or validation",
            "rename them, such as train-00000-of-00001.parquet",
        )
    wants = wants or Wants()
    parquet = require("pyarrow.parquet", purpose="reading parquet files", extra="images")
    schema = _opened(parquet, files[0]).schema_arrow
    if wants.columns or not (_struct_columns(schema) or not text_columns(schema)):
        return {
            split: TextSplit(_texts(parquet, names, wants.columns), wants.tokenizer, str(path))
            for split, names in shards.items()
        }
    return {split: ParquetSplit(names, wants.preprocessing) for split, names in shards.items()}


def text_columns(schema: Any) -> list[str]:
    """Names of the columns of texts."""
    return [str(field.name) for field in schema if str(field.type) in ("string", "large_string")]


def _texts(parquet: Any, files: Sequence[Path], columns: Sequence[str]) -> list[Text]:
    found: list[Text] = []
    for file in files:
        opened = _opened(parquet, file)
        names = [str(name) for name in opened.schema_arrow.names]
        chosen = choose_columns(names, columns, text_columns(opened.schema_arrow), source=str(file))
        try:
            table = opened.read(columns=chosen)
        except (OSError, ValueError) as error:
            raise _damaged(file, error) from error
        found += as_texts(zip(*(table.column(name).to_pylist() for name in chosen), strict=True))
    return found


def _opened(parquet: Any, file: Path) -> Any:
    try:
        return parquet.ParquetFile(file)
    except (OSError, ValueError) as error:
        raise _damaged(file, error) from error


@dataclass(frozen=True)
class _RowGroup:
    """The part of a file that is read at once; ``first`` is its first row within the file."""

    file: Path
    index: int
    first: int
    size: int


class ParquetSplit:
    """Images of several parquet files, one after the other.

    Only the row groups that hold requested rows are read, one at a time; the last one is kept.

    Parameters
    ----------
    files
        The shards, in order.
    preprocessing
        How images are resized and cut.
    """

    is_images = True

    def __init__(self, files: Sequence[Path], preprocessing: Preprocessing) -> None:
        self._parquet = require("pyarrow.parquet", purpose="reading parquet files", extra="images")
        self._decoder = Decoder(self._sample, preprocessing)
        self._files = tuple(files)
        self._groups: list[_RowGroup] = []
        columns = set()
        for file in files:
            parquet = self._open(file)
            columns.add((_image_column(parquet, file), _label_column(parquet, file)))
            first = 0
            for index in range(parquet.num_row_groups):
                size = parquet.metadata.row_group(index).num_rows
                self._groups.append(_RowGroup(file, index, first, size))
                first += size
        if len(columns) > 1:
            raise SparsemendError(
                f"the parquet files beside {str(files[0])!r} differ in their columns",
                sorted(columns, key=str),
                "the same image and label column in every file of a split",
            )
        self._image_column, self._label_column = columns.pop()
        self._starts = [0, *accumulate(group.size for group in self._groups)]
        self._last: tuple[_RowGroup, Any] | None = None

    def __len__(self) -> int:
        return self._starts[-1]

    @cached_property
    def labels(self) -> Tensor | None:
        if self._label_column is None:
            return None
        parts = []
        for file in self._files:
            try:
                column = self._open(file).read(columns=[self._label_column]).column(0)
            except (OSError, ValueError) as error:
                raise _damaged(file, error) from error
            if column.null_count:
                raise SparsemendError(
                    f"column {self._label_column!r} of {str(file)!r} lacks labels",
                    f"{column.null_count} empty rows",
                    "an integer in every row",
                )
            parts.append(torch.from_numpy(column.to_numpy().copy()))
        source = f"column {self._label_column!r} of {str(self._files[0].parent)!r}"
        return check_labels(torch.cat(parts), len(self), source=source)

    def inputs(self, rows: Sequence[int]) -> Tensor:
        # Group by group in file order, so that each is read once, whatever the order of rows.
        wanted: defaultdict[int, list[int]] = defaultdict(list)
        for position, row in enumerate(rows):
            wanted[bisect_right(self._starts, row) - 1].append(position)
        encoded: list[tuple[str, bytes]] = [("", b"")] * len(rows)
        for number in sorted(wanted):
            group = self._groups[number]
            column = self._read(group)
            for position in wanted[number]:
                row = rows[position] - self._starts[number]
                where = f"in row {group.first + row} of {str(group.file)!r}"
                content = column[row].as_py()
                if content is None:
                    raise SparsemendError(
                        f"image {where} has no bytes", fix="embed the images in the parquet file"
                    )
                encoded[position] = (where, content)
        return self._decoder.decode(encoded)

    def _sample(self) -> list[io.BytesIO]:
        """Images of the first row group that has any: others would have to be read for it."""
        group = next(group for group in self._groups if group.size)
        column = self._read(group)
        contents = (column[row].as_py() for row in evenly(group.size))
        return [io.BytesIO(content) for content in contents if content is not None]

    def _open(self, file: Path) -> Any:
        return _opened(self._parquet, file)

    def _read(self, group: _RowGroup) -> Any:
        """Return the encoded images of a row group, an arrow array of binaries."""
        if self._last is None or self._last[0] != group:
            try:
                table = self._open(group.file).read_row_group(
                    group.index, columns=[f"{self._image_column}.bytes"]
                )
            except (OSError, ValueError) as error:
                raise _damaged(group.file, error) from error
            self._last = (group, table.flatten().column(0))
        return self._last[1]


def _image_column(parquet: Any, file: Path) -> str:
    """Return the name of the struct column with ``bytes``; by name where there are several."""
    found = _struct_columns(parquet.schema_arrow)
    for name in IMAGE_COLUMNS:
        if name in found:
            return name
    if not found:
        raise SparsemendError(
            f"parquet file {str(file)!r} has no column of images",
            parquet.schema_arrow.names,
            "a struct column, such as 'image', with a field 'bytes'",
        )
    return found[0]


def _struct_columns(schema: Any) -> list[str]:
    """Names of the columns that hold encoded images."""
    return [
        str(column.name)
        for column in schema
        if str(column.type).startswith("struct") and column.type.get_field_index("bytes") >= 0
    ]


def _label_column(parquet: Any, file: Path) -> str | None:
    schema = parquet.schema_arrow
    for name in LABEL_COLUMNS:
        if name in schema.names:
            kind = str(schema.field(name).type)
            if not kind.startswith(("int", "uint")):
                raise SparsemendError(
                    f"column {name!r} of {str(file)!r} has the wrong type", kind, "integers"
                )
            return name
    return None


def _damaged(file: Path, error: Exception) -> SparsemendError:
    return SparsemendError(
        f"parquet file {str(file)!r} cannot be read ({error})",
        fix="it may be half-written: copy or download it again",
    )
