"""How long something takes, on a machine that may be busy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

# Runs of a burst: as many as take about so long, within these.
_BURST, _FEWEST, _MOST = 0.1, 3, 50
_BURSTS = 5


def best_time(run: Callable[[], object], repeats: int) -> float:
    """The shortest of some runs, seconds; a first one is not counted."""
    run()
    return min(_times(run, repeats))


def steady_time(run: Callable[[], object]) -> float:
    """What a run takes on a quiet machine, seconds: the median of the quietest of some bursts."""
    repeats = min(max(round(_BURST / max(best_time(run, 1), 1e-9)), _FEWEST), _MOST)

    def burst() -> float:
        return statistics.median(_times(run, repeats))

    return min(burst() for _ in range(_BURSTS))


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times
