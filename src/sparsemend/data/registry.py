"""The data formats, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsemend.boundary import public
from sparsemend.data import arrays, folder, parquet, text
from sparsemend.data._listing import has_images
from sparsemend.data._split import Split
from sparsemend.data._wants import Wants
from sparsemend.data.data_set import DataSet
from sparsemend.data.digits import read_digits
from sparsemend.data.given import GivenBatches
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.errors import SparsemendError


@dataclass(frozen=True)
class Format:
    """A data format.

    Attributes
    ----------
    describe
        What the user has to have, for the error's text.
    accepts
        Whether a path that exists is of this format; a quick look.
    read
        From the path and what the network wants, the splits by name: ``train``, ``test``,
        ``validation``.
    takes
        What may be said of how it is read: ``"preprocessing"`` of images, ``"columns"`` of tables.
    """

    describe: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path, Wants], Mapping[str, Split]]
    takes: frozenset[str] = frozenset()


_DIGITS = "digits"
# Asked in this order.
FORMATS: dict[str, Format] = {
    "parquet": Format(
        "a folder of parquet files (train-*.parquet, test-*.parquet), or one",
        lambda path: bool(parquet.parquet_files(path)),
        parquet.read_parquet,
        frozenset({"preprocessing", "columns"}),
    ),
    "folder": Format(
        "a folder of images by class (train/CLASS/*.png, test/CLASS/*.png)",
        lambda path: path.is_dir() and has_images(path),
        folder.read_folder,
        frozenset({"preprocessing"}),
    ),
    "list": Format(
        "a .txt file of paths of images",
        folder.is_list,
        folder.read_list,
        frozenset({"preprocessing"}),
    ),
    "text": Format(
        "a .txt file of texts, or a .csv or .tsv with a column of them",
        lambda path: path.is_file() and path.suffix in text.SUFFIXES,
        text.read_text,
        frozenset({"columns"}),
    ),
    "arrays": Format(
        "an .npz or .safetensors file of arrays (x_train, y_train, x_test, y_test; or inputs)",
        lambda path: path.is_file() and path.suffix in arrays.SUFFIXES,
        arrays.read_arrays,
    ),
}


@public
def load(
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    preprocessing: Preprocessing | None = None,
    tokenizer: Any = None,
    columns: Sequence[str] = (),
) -> DataSet:
    """Open a data set; inputs are read when they are asked for.

    Parameters
    ----------
    path
        A folder of images, by class or not; a text file of paths of images; parquet files in
        the Hugging Face image layout or with a column of texts; a ``.txt``, ``.csv`` or ``.tsv``
        of texts; an ``.npz`` or ``.safetensors`` file of arrays; ``"package.module:batches"`` or
        ``"file.py:batches"``, a function that returns unlabelled batches; or ``"digits"``
        (scikit-learn's).
    mean, std
        Per-channel normalisation of pixels in [0, 1]; both or neither. They go before those of
        the preprocessing.
    preprocessing
        How images of any size become what the network takes, such as
        ``sm.models.load(...).preprocessing``; by default they must have one size.
    tokenizer
        Of texts, such as ``sm.models.load(...).tokenizer``.
    columns
        Which columns of a table hold the texts, two for pairs.

    Returns
    -------
    DataSet
        Calibration inputs from its training split, evaluation inputs from its test split.

    Raises
    ------
    SparsemendError
        If the path does not exist or is no data set, or mean and std do not fit.

    Examples
    --------
    >>> data = load("digits", mean=[0.3], std=[0.4])
    >>> data.calibration(64, seed=0).shape
    torch.Size([64, 1, 8, 8])
    """
    found = _format_of(path)
    if columns and (found is None or "columns" not in found.takes):
        raise SparsemendError(
            f"data {str(path)!r} has no columns to choose from", list(columns), fix="leave them out"
        )
    how = (preprocessing or Preprocessing()).but(mean=mean, std=std)
    if found is not None:
        splits = found.read(Path(path), Wants(how, tokenizer, columns))
        return DataSet(splits, source=str(path), mean=how.mean, std=how.std)
    if str(path) == _DIGITS:
        return DataSet(read_digits(), source=_DIGITS, mean=how.mean, std=how.std)
    return GivenBatches(str(path))


def takes(path: str | Path, what: str) -> bool:
    """Whether ``"preprocessing"`` or ``"columns"`` mean something for a data set.

    Raises
    ------
    SparsemendError
        If there is none.
    """
    found = _format_of(path)
    return found is not None and what in found.takes


def _format_of(given: str | Path) -> Format | None:
    """The format of what is there; None for digits, and where a function is named."""
    path = Path(given)
    if str(given) == _DIGITS or (":" in str(given) and not path.exists()):
        return None
    if not path.exists():
        raise SparsemendError(f"data {str(path)!r} does not exist", allowed=_allowed())
    for format_ in FORMATS.values():
        if format_.accepts(path):
            return format_
    empty = path.is_dir() and not any(path.iterdir())
    raise SparsemendError(
        f"data {str(path)!r} is {'an empty folder' if empty else 'no data set'}",
        allowed=_allowed(),
        fix="pass the folder or file that holds the inputs",
    )


def _allowed() -> str:
    known = (format_.describe for format_ in FORMATS.values())
    return "; ".join([*known, "package.module:batches", "or 'digits'"])
