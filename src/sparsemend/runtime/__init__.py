"""The sparse runtime: networks with zeros that run faster than dense ones on a CPU."""

from sparsemend.runtime.loading import load
from sparsemend.runtime.planning import Choice
from sparsemend.runtime.prepared import Prepared, prepare
from sparsemend.runtime.steps import instruction_sets

__all__ = ["Choice", "Prepared", "instruction_sets", "load", "prepare"]
