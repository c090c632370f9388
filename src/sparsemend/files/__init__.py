"""Files: written whole or not at all, and read without trusting what they claim."""

from sparsemend.files.archives import check_archive, npz_arrays, npz_keys
from sparsemend.files.atomic import (
    atomic_path,
    atomic_write,
    cannot_write,
    check_target,
    regular_target,
    written_files,
)
from sparsemend.files.folders import check_folder, filled_folder, make_folder
from sparsemend.files.parsing import parse_json, read_file, read_json
from sparsemend.files.tables import csv_text

__all__ = [
    "atomic_path",
    "atomic_write",
    "cannot_write",
    "check_archive",
    "check_folder",
    "check_target",
    "csv_text",
    "filled_folder",
    "make_folder",
    "npz_arrays",
    "npz_keys",
    "parse_json",
    "read_file",
    "read_json",
    "regular_target",
    "written_files",
]
