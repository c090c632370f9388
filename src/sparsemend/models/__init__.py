"""Built-in networks for small images, and the loading of trained ones from anywhere."""

from sparsemend.models.loading import LoadedModel, load
from sparsemend.models.registry import create, names

__all__ = ["LoadedModel", "create", "load", "names"]
