"""The sources of networks; to add one, write a file for it and enter its record here."""

from __future__ import annotations

from sparsemend.models.sources.built_in import BUILT_IN
from sparsemend.models.sources.factory import FACTORY
from sparsemend.models.sources.huggingface import HUGGING_FACE
from sparsemend.models.sources.source import Source
from sparsemend.models.sources.timm import TIMM
from sparsemend.models.sources.torchvision import TORCHVISION

# Asked in this order.
SOURCES: dict[str, Source] = {
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "hf": HUGGING_FACE,
    "factory": FACTORY,
    "built-in": BUILT_IN,
}


def find_source(spec: str) -> tuple[Source, str]:
    """The source of what was written, and the name within it."""
    for source in SOURCES.values():
        name = source.accepts(spec)
        if name is not None:
            return source, name
    return BUILT_IN, spec  # which knows the names that are meant
