"""How fast a network runs: the sparse runtime beside dense ones, interleaved."""

from sparsemend.timing.measuring import Timing, bench

__all__ = ["Timing", "bench"]
