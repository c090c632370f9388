"""Numerical cores of reconstruction: pure functions on tensors."""

from sparsemend.solvers.least_squares import solve_on_support
from sparsemend.solvers.splitting import (
    ROUGH,
    THOROUGH,
    Schedule,
    ShiftedInverses,
    choose_support,
    largest_entries,
)

__all__ = [
    "ROUGH",
    "THOROUGH",
    "Schedule",
    "ShiftedInverses",
    "choose_support",
    "largest_entries",
    "solve_on_support",
]
