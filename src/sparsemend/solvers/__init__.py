"""Numerical cores of reconstruction: pure functions on tensors."""

from sparsemend.solvers.least_squares import solve_on_support
from sparsemend.solvers.splitting import (
    FURTHER,
    ROUGH,
    THOROUGH,
    Schedule,
    ShiftedInverses,
    Splitting,
    choose_support,
    largest_entries,
    nested_supports,
)

__all__ = [
    "FURTHER",
    "ROUGH",
    "THOROUGH",
    "Schedule",
    "ShiftedInverses",
    "Splitting",
    "choose_support",
    "largest_entries",
    "nested_supports",
    "solve_on_support",
]
