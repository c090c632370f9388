"""The data formats, and the choice between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sparsemend.data import arrays, folder, parquet
from sparsemend.data._listing import has_images
from sparsemend.data._split import Split
from sparsemend.data.digits import read_digits
from sparsemend.data.image_data import ImageData
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
        Returns the splits by name: ``train``, ``test``, ``validation``.
    """

    describe: str
    accepts: Callable[[Path], bool]
    read: Callable[[Path], Mapping[str, Split]]


# Asked in this order.
FORMATS: dict[str, Format] = {
    "parquet": Format(
        "a folder of parquet files (train-*.parquet, test-*.parquet)",
        lambda path: path.is_dir() and bool(parquet.parquet_files(path)),
        parquet.read_parquet,
    ),
    "folder": Format(
        "a folder of images by class (train/CLASS/*.png, test/CLASS/*.png)",
        lambda path: path.is_dir() and has_images(path),
        folder.read_folder,
    ),
    "arrays": Format(
        "an .npz or .safetensors file of arrays (x_train, y_train, x_test, y_test)",
        lambda path: path.is_file() and path.suffix in arrays.SUFFIXES,
        arrays.read_arrays,
    ),
}


def load(
    path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> ImageData:
    """Open a data set; images are read when they are asked for.

    Parameters
    ----------
    path
        A folder of parquet files in the Hugging Face image layout, a folder of images by class,
        an ``.npz`` or ``.safetensors`` file of arrays, or ``"digits"`` (scikit-learn's).
    mean, std
        Per-channel normalisation of pixels in [0, 1]; both or neither.

    Returns
    -------
    ImageData
        Calibration images from its training split, evaluation images from its test split.

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
    if str(path) == "digits":
        return ImageData(read_digits(), source="digits", mean=mean, std=std)
    splits = _format_of(Path(path)).read(Path(path))
    return ImageData(splits, source=str(path), mean=mean, std=std)


def _format_of(path: Path) -> Format:
    if not path.exists():
        raise SparsemendError(f"data {str(path)!r} does not exist", allowed=_allowed())
    for format_ in FORMATS.values():
        if format_.accepts(path):
            return format_
    empty = path.is_dir() and not any(path.iterdir())
    raise SparsemendError(
        f"data {str(path)!r} is {'an empty folder' if empty else 'no data set'}",
        allowed=_allowed(),
        fix="pass the folder or file that holds the images",
    )


def _allowed() -> str:
    return "; ".join([*(format_.describe for format_ in FORMATS.values()), "or 'digits'"])
