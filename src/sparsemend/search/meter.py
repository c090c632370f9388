"""What a search has spent of its budget."""

from __future__ import annotations

import math
import time

from sparsemend.recipe import Budget


class Meter:
    """Counts what a search has spent; the clock starts when it is made.

    Parameters
    ----------
    budget
        What there is to spend.
    kept, kept_seconds
        Repairs, and time beside them, that trials leave over for the end.
    """

    def __init__(self, budget: Budget, kept: float = 0.0, kept_seconds: float = 0.0) -> None:
        self._budget, self._spent, self._start = budget, 0.0, time.monotonic()
        self._kept, self._kept_seconds = kept, kept_seconds

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

    def affords(self, repairs: float, seconds: float = 0.0) -> bool:
        """Whether a trial of this cost, and of so much time beside it, may start."""
        # A sum of shares such as 0.1 may miss the whole number that it stands for.
        within = self._spent + repairs + self._kept <= self._budget.repairs * (1 + 1e-9)
        passed = self.seconds
        each = passed / self._spent if self._spent else 0.0
        ending = passed + seconds + self._kept_seconds + self._kept * each
        return within and ending < self._budget.seconds

    def release(self) -> None:
        """What was kept for the end may be spent."""
        self._kept = self._kept_seconds = 0.0

    def charge(self, repairs: float) -> None:
        self._spent += repairs
