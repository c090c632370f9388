"""What the rest of the library needs to know of one allocation rule."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

_SPARSE = 0.95


@dataclass(frozen=True)
class Rule:
    """One allocation rule.

    Attributes
    ----------
    name
        As users write it.
    counts
        From a :class:`.Problem` to one kept count per layer, in execution order, that add up to
        ``problem.keep``. Keyword-only arguments are options of :func:`sparsemend.allocate`.
    needs
        What it looks at: the layers' shapes alone; also their weights; also the mean squares of
        the columns of their inputs; or also a diagnosis, and the sensitivities in that.
    may_refuse
        Some budgets or layers are beyond it. Where all rules are tried it is then left out.
    colour
        Role of its colour in figures, see :mod:`sparsemend.reports.drawing.palette`; by default
        one that no other rule in the figure has.
    rank
        When a search tries it: smaller ranks first, so that a small budget tries these. By default
        after all others.
    sparse_rank
        The same at 95 % sparsity and beyond, where what leads before may end behind others; by
        default no other one.
    even
        Every layer gets the same density: such a rule fits patterns that have a density.
    searched
        Whether the search of rule ``auto`` tries it.
    """

    name: str
    counts: Callable[..., Sequence[int]]
    needs: Literal["shapes", "weights", "columns", "diagnosis", "sensitivities"]
    may_refuse: bool = False
    colour: str = ""
    rank: float = math.inf
    sparse_rank: float | None = None
    even: bool = False
    searched: bool = True

    @property
    def diagnosed(self) -> bool:
        """Whether it looks at a diagnosis."""
        return self.needs in ("diagnosis", "sensitivities")

    def rank_at(self, sparsity: float) -> float:
        """When a search for allocations of this sparsity tries it."""
        if sparsity < _SPARSE or self.sparse_rank is None:
            return self.rank
        return self.sparse_rank
