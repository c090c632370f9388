"""Packed networks: small files of kept weights, with what the network computes."""

from sparsemend.packed.contents import DTYPES, Packed
from sparsemend.packed.reading import read_packed
from sparsemend.packed.writing import pack

__all__ = ["DTYPES", "Packed", "pack", "read_packed"]
