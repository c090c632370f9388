"""How long something takes, on a machine that may be busy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

# A burst takes about so many seconds, within these numbers of runs: what else runs on the machine
# leaves some of them alone. All together take about a second.
_BURST, _FEWEST_RUNS, _MOST_RUNS = 0.01, 3, 50
_FEWEST_BURSTS, _MOST_BURSTS = 5, 100


def best_time(run: Callable[[], object], repeats: int) -> float:
    """The shortest of some runs, seconds; a first one is not counted."""
    run()
    return min(_times(run, repeats))


def steady_time(run: Callable[[], object]) -> float:
    """What a run takes on a quiet machine, seconds: the median of the quietest of many bursts."""
    once = max(best_time(run, 1), 1e-9)
    runs = min(max(round(_BURST / once), _FEWEST_RUNS), _MOST_RUNS)
    bursts = min(max(round(1 / (runs * once)), _FEWEST_BURSTS), _MOST_BURSTS)
    return min(statistics.median(_times(run, runs)) for _ in range(bursts))


def _times(run: Callable[[], object], repeats: int) -> list[float]:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return times
