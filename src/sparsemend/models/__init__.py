"""Built-in networks for small images, and the loading of trained ones."""

from sparsemend.models.loading import LoadedModel, current_folder_importable, load
from sparsemend.models.registry import create, names

__all__ = ["LoadedModel", "create", "current_folder_importable", "load", "names"]
