"""How long a search may take: a number of repairs, or minutes."""

from __future__ import annotations

import math
import re
import time
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
        Repairs of the whole network that a search may make; a cheaper trial counts by its share.
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
    units = {"": None, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", str(value))
    if not found or found[2] not in units or float(found[1]) <= 0:
        raise SparsemendError("the search budget is not understood", value, _ALLOWED)
    unit = units[found[2]]
    if unit is None:
        return Budget(repairs=float(found[1]))
    return Budget(repairs=math.inf, seconds=float(found[1]) * unit)


class Meter:
    """Counts what a search has spent; the clock starts when it is made."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self._spent, self._start = budget, 0.0, time.monotonic()

    @property
    def spent(self) -> float:
        """In repairs."""
        return self._spent

    @property
    def seconds(self) -> float:
        """Time since it was made."""
        return time.monotonic() - self._start

    @property
    def total(self) -> float:
        """What there is to spend: repairs, or seconds where these are the limit."""
        return self._budget.repairs if math.isfinite(self._budget.repairs) else self._budget.seconds

    @property
    def done(self) -> float:
        """What of :attr:`total` is spent."""
        counted = math.isfinite(self._budget.repairs)
        return self._spent if counted else self.seconds

    def affords(self, repairs: float) -> bool:
        """Whether a trial of this cost may start."""
        # A sum of shares such as 0.1 may miss the whole number that it stands for.
        within = self._spent + repairs <= self._budget.repairs * (1 + 1e-9)
        return within and self.seconds < self._budget.seconds

    def charge(self, repairs: float) -> None:
        self._spent += repairs
