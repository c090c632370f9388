"""Reading results back from the files that other commands wrote."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsemend.allocation import Allocation
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError
from sparsemend.files import read_file, read_json
from sparsemend.reports.compose import Source
from sparsemend.reports.contents import Compression
from sparsemend.sweeps import SweepResult


def _json(path: Path) -> Source:
    """Told apart by what is in them."""
    values = read_json(path)
    for needed, read in _OBJECTS.items():
        if isinstance(values, Mapping) and needed <= values.keys():
            return read(values)
    raise SparsemendError(
        "this JSON is no result that a report can show",
        allowed="what sparsemend diagnose --out, compress --json or allocate --json wrote",
    )


# The keys that tell an object → how to read it.
_OBJECTS: dict[frozenset[str], Callable[[Mapping[str, Any]], Source]] = {
    frozenset({"format", "layers", "densities"}): Diagnosis.from_dict,
    frozenset({"counts", "tried", "kl"}): Compression.from_dict,
    frozenset({"rule", "kept", "sizes"}): Allocation.from_dict,
}

# Ending → reader. A new kind of result is one entry.
READERS: dict[str, Callable[[Path], Source]] = {
    ".json": lambda path: read_file(path, "result", _json),
    ".npz": Diagnosis.load,
    ".sqlite": SweepResult.load,
    ".db": SweepResult.load,
}


def load_source(path: Path) -> Source:
    """A result from its file.

    Raises
    ------
    SparsemendError
        If there is no such file, or it holds nothing that a report can show.
    """
    if path.suffix not in READERS:
        raise SparsemendError("unknown ending of a result", str(path), ", ".join(READERS))
    return READERS[path.suffix](path)
