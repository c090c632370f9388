"""Inputs for calibration and evaluation, from files: images, texts, arrays."""

from sparsemend.data.crops import token_crops
from sparsemend.data.data_set import DataSet
from sparsemend.data.preprocessing import Preprocessing
from sparsemend.data.registry import load

__all__ = ["DataSet", "Preprocessing", "load", "token_crops"]
