"""Choosing without labels: the judge is closeness to the dense network on unseen inputs."""

from sparsemend.search.best import Best, hold_out, repair_best

__all__ = ["Best", "hold_out", "repair_best"]
