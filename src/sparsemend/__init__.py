"""Prune a trained network very hard without labels, see where the damage went, and repair it.

Not run as a test, for the search takes minutes:

>>> import sparsemend as sm
>>> result = sm.compress(model, batches, 0.95)  # doctest: +SKIP
"""

# First: it makes an interrupt of what follows one line.
from . import startup as _startup  # noqa: F401  # isort: skip

from importlib.metadata import version

from sparsemend import data, models, runtime
from sparsemend.allocation import Allocation, rule_names
from sparsemend.calibration import Calibration, calibrate
from sparsemend.diagnosis import Diagnosis, diagnose
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import Agreement, Evaluation, Perplexity, agreement, evaluate, perplexity
from sparsemend.exports import Export, export, load_checkpoint, save_checkpoint
from sparsemend.layers import Layer, LayerSet, discover
from sparsemend.masks import find_masks, prune
from sparsemend.repairs import recalibrate, repair_names
from sparsemend.reports import Report, report
from sparsemend.search import AllocationSearch
from sparsemend.sweeps import AblationResult, SweepResult
from sparsemend.sweeps.ablate import ablate
from sparsemend.timing import Timing, bench
from sparsemend.verbs.allocate import allocate
from sparsemend.verbs.compress import compress
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.plan import Plan

# Last: importing the packages of the same names set these names to the packages.
from sparsemend.verbs.repair import repair  # isort: skip
from sparsemend.sweeps.sweep import sweep  # isort: skip

__version__ = version("sparsemend")

__all__ = [
    "AblationResult",
    "Agreement",
    "Allocation",
    "AllocationSearch",
    "Calibration",
    "CompressionResult",
    "Diagnosis",
    "Evaluation",
    "Export",
    "Layer",
    "LayerSet",
    "Perplexity",
    "Plan",
    "Report",
    "SparsemendError",
    "SparsemendWarning",
    "SweepResult",
    "Timing",
    "__version__",
    "ablate",
    "agreement",
    "allocate",
    "bench",
    "calibrate",
    "compress",
    "data",
    "diagnose",
    "discover",
    "evaluate",
    "export",
    "find_masks",
    "load_checkpoint",
    "models",
    "perplexity",
    "prune",
    "recalibrate",
    "repair",
    "repair_names",
    "report",
    "rule_names",
    "runtime",
    "save_checkpoint",
    "sweep",
]
