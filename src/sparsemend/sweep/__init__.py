"""Sweeps: a grid of configurations, computed once each, and the transition they show."""

from sparsemend.sweep.records import Cell, Measure, Record, Spread, Transition

__all__ = ["Cell", "Measure", "Record", "Spread", "Transition"]
