"""Packed networks: small files of kept weights, with what the network computes."""

from sparsemend.packed.contents import DTYPES, Packed
from sparsemend.packed.reading import read_packed
from sparsemend.packed.writing import expected_length, pack

__all__ = ["DTYPES", "Packed", "expected_length", "pack", "read_packed"]
