"""Images for calibration and evaluation, from files."""

from sparsemend.data.image_data import ImageData
from sparsemend.data.registry import load

__all__ = ["ImageData", "load"]
