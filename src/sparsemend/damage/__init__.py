"""What pruning does to a layer's outputs, in closed form from its calibration moments."""

from sparsemend.damage.closed_form import output_statistics

__all__ = ["output_statistics"]
