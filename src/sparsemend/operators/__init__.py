"""Repair operators: one file each, and a registry. Diagnosis and repair both read them.

An operator turns paired statistics of dense and pruned outputs into a scale per channel. Its
residual then follows in closed form, and its repair by folding.
"""

from sparsemend.operators.operator import Operator
from sparsemend.operators.registry import OPERATORS

__all__ = ["OPERATORS", "Operator"]
