"""Which weights of a layer can be kept at all: one file per kind of pattern, and a registry."""

from sparsemend.patterns.free import FREE, UNSTRUCTURED
from sparsemend.patterns.matrix_shape import MatrixShape
from sparsemend.patterns.pattern import Pattern, Structure, Within
from sparsemend.patterns.registry import PATTERNS, parse_pattern, pattern_spellings, patterned

__all__ = [
    "FREE",
    "PATTERNS",
    "UNSTRUCTURED",
    "MatrixShape",
    "Pattern",
    "Structure",
    "Within",
    "parse_pattern",
    "pattern_spellings",
    "patterned",
]
