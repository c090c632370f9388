"""Mixtures of rules: geometric means of their densities, which smooth out what each overdoes."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from sparsemend.search.directions import Array

# Rule → its share; they add up to 1.
Mixture = Mapping[str, float]


def first_mixtures(ranked: Sequence[str]) -> list[Mixture]:
    """Of the best three rules together, then of every two of them.

    Parameters
    ----------
    ranked
        Rules, the best first; fewer than three give fewer mixtures, fewer than two none.
    """
    best = ranked[:3]
    groups = [best] if len(best) > 2 else []
    groups += itertools.combinations(best, 2)
    return [{rule: 1 / len(group) for rule in group} for group in groups]


def halfway(one: Mixture, other: Mixture) -> Mixture:
    """The mixture in the middle of two."""
    rules = dict.fromkeys((*one, *other))
    return {rule: (one.get(rule, 0.0) + other.get(rule, 0.0)) / 2 for rule in rules}


def mix(mixture: Mixture, points: Mapping[str, Array]) -> Array:
    """Log densities of a mixture, [L], from those of the rules."""
    mean: Array = np.sum([share * points[rule] for rule, share in mixture.items()], axis=0)
    return mean


def describe(mixture: Mixture) -> str:
    """Its name, such as ``"0.50 erk + 0.50 global"``; a single rule's is the rule's own."""
    if len(mixture) == 1:
        return next(iter(mixture))
    return " + ".join(f"{share:.2f} {rule}" for rule, share in mixture.items())
