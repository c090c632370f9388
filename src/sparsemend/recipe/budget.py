"""How long a search may take: a number of repairs, or minutes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from sparsemend.errors import SparsemendError

DEFAULT_REPAIRS = 40.0
_ALLOWED = "a positive number of repairs, such as 40, or a time, such as '20min'"


@dataclass(frozen=True)
class Budget:
    """Either limit may be infinite.

    Attributes
    ----------
    repairs
        Repairs of the whole network that a search may make; a cheaper trial counts by its share,
        and every hundred steps of a training as one more.
    seconds
        Wall-clock time after which no further trial starts.
    """

    repairs: float = DEFAULT_REPAIRS
    seconds: float = math.inf

    def __str__(self) -> str:
        """What :func:`parse_budget` reads it from, where it has one limit."""
        counted = math.isfinite(self.repairs)
        return f"{self.repairs:.15g}" if counted else f"{self.seconds:.15g}s"


def parse_budget(value: float | str | None) -> Budget:
    """Read ``40``, ``"40"``, ``"20min"``, ``"90s"`` or ``"2h"``; None is the default.

    Raises
    ------
    SparsemendError
        For anything else.
    """
    if value is None:
        return Budget()
    amount = read_amount(value)
    if amount is None:
        raise SparsemendError("the search budget is not understood", value, _ALLOWED)
    number, timed = amount
    return Budget(repairs=math.inf, seconds=number) if timed else Budget(repairs=number)


def read_amount(value: object) -> tuple[float, bool] | None:
    """A positive number, and whether it is seconds; None for what is neither number nor time."""
    units = {"": 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value))
    if not found or found[2] not in units or float(found[1]) <= 0:
        return None
    return float(found[1]) * units[found[2]], found[2] != ""
