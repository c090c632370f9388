"""The result of every rule: how many weights each layer keeps."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError, printable
from sparsemend.files import read_file, read_json


class Allocation(Mapping[str, int]):
    """Kept weights per layer: an immutable mapping from layer name to kept count.

    Parameters
    ----------
    counts
        Kept count of each layer, in execution order.
    sizes
        Number of weights of each layer; the same names as ``counts``.
    rule
        Name of the rule that made the allocation.

    Raises
    ------
    SparsemendError
        If the names differ, or a count is not an integer between 0 and its layer's size.

    Examples
    --------
    >>> allocation = Allocation({"conv": 30, "fc": 20}, {"conv": 100, "fc": 400}, rule="uniform")
    >>> allocation["conv"], allocation.kept, allocation.sparsity
    (30, 50, 0.9)
    """

    __slots__ = ("_counts", "_rule", "_sizes")

    @public
    def __init__(self, counts: Mapping[str, int], sizes: Mapping[str, int], rule: str) -> None:
        if counts.keys() != sizes.keys():
            raise SparsemendError(
                "counts and sizes of an allocation name different layers",
                sorted(map(str, counts.keys() ^ sizes.keys())),
                "the same layer names in both",
            )
        if not sizes:
            raise SparsemendError("an allocation needs at least one layer", dict(counts))
        self._sizes = {name: _integer(name, "size", size) for name, size in sizes.items()}
        self._counts = {name: _integer(name, "kept count", kept) for name, kept in counts.items()}
        self._rule = rule
        for name, kept in self._counts.items():
            if not 0 <= kept <= self._sizes[name]:
                raise SparsemendError(
                    f"kept count of layer {name!r} is out of range",
                    kept,
                    f"an integer from 0 to the layer's size {self._sizes[name]}",
                )

    def __getitem__(self, name: str) -> int:
        return self._counts[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def rule(self) -> str:
        """Name of the rule that made the allocation."""
        return self._rule

    @property
    def sizes(self) -> Mapping[str, int]:
        """Number of weights of each layer."""
        return MappingProxyType(self._sizes)

    @property
    def densities(self) -> Mapping[str, float]:
        """Kept fraction of each layer, in [0, 1]; 0 for a layer without weights."""
        return MappingProxyType(
            {name: kept / max(self._sizes[name], 1) for name, kept in self._counts.items()}
        )

    @property
    def total(self) -> int:
        """Number of prunable weights N."""
        return sum(self._sizes.values())

    @property
    def kept(self) -> int:
        """Number of weights kept, over all layers."""
        return sum(self._counts.values())

    @property
    def sparsity(self) -> float:
        """Achieved sparsity 1 − kept / total, a fraction."""
        # The integer difference first: 1 - kept / total would round twice.
        return (self.total - self.kept) / max(self.total, 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; :meth:`from_dict` reads it back."""
        return {"rule": self._rule, "kept": dict(self._counts), "sizes": dict(self._sizes)}

    @classmethod
    @public
    def from_dict(cls, data: Mapping[str, Any]) -> Allocation:
        """Read what :meth:`to_dict` wrote.

        Raises
        ------
        SparsemendError
            If a key is missing or a value does not validate.
        """
        return cls._read(data)

    @classmethod
    def _read(cls, data: Any) -> Allocation:
        expected = {"rule", "kept", "sizes"}
        # A compression has a number under "kept".
        if not (
            isinstance(data, Mapping)
            and expected <= data.keys()
            and all(isinstance(data[key], Mapping) for key in ("kept", "sizes"))
        ):
            raise SparsemendError(
                "this is no allocation",
                sorted(map(str, data)) if isinstance(data, Mapping) else data,
                "a mapping with the keys 'kept', 'rule' and 'sizes'",
            )
        if not isinstance(data["rule"], str):
            raise SparsemendError(
                "this is no allocation: 'rule'", data["rule"], "the name of a rule"
            )
        return cls(data["kept"], data["sizes"], data["rule"])

    @classmethod
    @public
    def load(cls, path: str | os.PathLike[str]) -> Allocation:
        """Read the file of what ``sparsemend allocate --json`` printed.

        Raises
        ------
        SparsemendError
            If there is no such file, or it holds no allocation.
        """
        return read_file(Path(path), "allocation", lambda file: cls._read(read_json(file)))

    def __repr__(self) -> str:
        return (
            f"Allocation(rule={self._rule!r}, layers={len(self)}, "
            f"kept={self.kept}, total={self.total}, sparsity={self.sparsity:.6g})"
        )

    def __str__(self) -> str:
        rows = [("layer", "size", "kept", "density")]
        rows += [
            (printable(name), str(self._sizes[name]), str(self._counts[name]), f"{density:.4f}")
            for name, density in self.densities.items()
        ]
        rows.append(("total", str(self.total), str(self.kept), f"{1 - self.sparsity:.4f}"))
        first, *rest = (max(map(len, column)) for column in zip(*rows, strict=True))
        lines = [
            "  ".join([name.ljust(first), *map(str.rjust, cells, rest)]) for name, *cells in rows
        ]
        return "\n".join([f"rule {printable(self._rule)}, sparsity {self.sparsity:.6g}", *lines])


def _integer(name: str, what: str, value: object) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise SparsemendError(
            f"{what} of layer {name!r} is not a count", value, "an integer"
        ) from None
