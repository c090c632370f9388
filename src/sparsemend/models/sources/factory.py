"""A network of the user's own: ``package.module:factory`` or ``path/mynet.py:factory``."""

from __future__ import annotations

from sparsemend.imports import find_object, importable
from sparsemend.models.sources.constructing import construct
from sparsemend.models.sources.source import Request, Source, Supply


def supply(request: Request) -> Supply:
    """Import the factory, call it with the arguments, and check the result."""
    factory, folder = find_object(request.spec, what="model")
    with importable(folder):  # it may import more
        return Supply(construct(factory, request.arguments, spec=request.spec))


FACTORY = Source(
    "package.module:factory or path/mynet.py:factory",
    lambda spec: spec if ":" in spec else None,
    supply,
)
