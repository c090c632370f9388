"""The known kinds of targets by name; a new one is one more entry."""

from __future__ import annotations

from sparsemend.targets.kind import Kind
from sparsemend.targets.latency import LATENCY
from sparsemend.targets.multiplications import FLOPS
from sparsemend.targets.size import SIZE

KINDS: dict[str, Kind] = {kind.name: kind for kind in (FLOPS, LATENCY, SIZE)}
