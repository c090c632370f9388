"""Images for calibration and evaluation, from files."""

from sparsemend.data._image_data import ImageData
from sparsemend.data._registry import load

__all__ = ["ImageData", "load"]
