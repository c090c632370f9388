"""Sweeps: a grid of configurations, computed once each, and the transition they show.

A sweep is a ``grid`` over networks and their ``inputs``; the ``plan`` says what each cell depends
on, the ``bench`` computes cells, the ``driver`` writes them to the ``store``. The tables follow
from the ``records`` (``schema``); earlier versions are brought up to date (``migrations``).
"""

from sparsemend.sweeps.ablation import AblationResult, Comparison
from sparsemend.sweeps.grid import Grid, make_grid, read_sparsities
from sparsemend.sweeps.inputs import DrawnInputs, GivenInputs, Inputs, Network
from sparsemend.sweeps.plan import Estimate, estimate
from sparsemend.sweeps.records import (
    Cell,
    Failure,
    Lead,
    Measure,
    Record,
    Settings,
    Spread,
    Transition,
)
from sparsemend.sweeps.result import SweepResult
from sparsemend.sweeps.transition import crossing, leading, leads, monotone, transitions

__all__ = [
    "AblationResult",
    "Cell",
    "Comparison",
    "DrawnInputs",
    "Estimate",
    "Failure",
    "GivenInputs",
    "Grid",
    "Inputs",
    "Lead",
    "Measure",
    "Network",
    "Record",
    "Settings",
    "Spread",
    "SweepResult",
    "Transition",
    "crossing",
    "estimate",
    "leading",
    "leads",
    "make_grid",
    "monotone",
    "read_sparsities",
    "transitions",
]
