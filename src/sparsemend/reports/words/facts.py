"""The labelled lines on top of a page: those that a compression ends with."""

from __future__ import annotations

from sparsemend.reports.contents import Contents
from sparsemend.verbs.screen import first_screen


def facts_of(contents: Contents) -> tuple[tuple[str, str], ...]:
    """Of the compression that is shown; empty where there is none."""
    shown = contents.compression
    if shown is None:
        return ()
    allocation = shown.allocation
    values = {
        **vars(shown),
        **shown.context,
        "sparsity": allocation.sparsity,
        "kept": allocation.kept,
        "total": allocation.total,
        "counts": dict(allocation),
        "sizes": dict(allocation.sizes),
        "target": {"text": shown.target},
        "timing": None if shown.timing is None else shown.timing.to_dict(),
        "coverage": None if shown.coverage is None else shown.coverage.to_dict(),
    }
    return tuple(first_screen(values))
