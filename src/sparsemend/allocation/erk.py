"""The Erdős–Rényi kernel: small layers stay denser."""

from __future__ import annotations

from fractions import Fraction

from sparsemend.allocation.budget import round_to_budget, water_fill
from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rule import Rule
from sparsemend.layers.layer import Layer


def erk_prior(layer: Layer) -> Fraction:
    """Sum of the stored weight's dimensions over its size; (C + d) / (C d) for linear layers."""
    return Fraction(sum(layer.shape), layer.size)


def erk(problem: Problem) -> tuple[int, ...]:
    """Capped Erdős–Rényi kernel of RigL (arXiv 1911.11134, section 3).

    density_l ∝ (sum of the weight's dimensions) / n_l; while some density exceeds 1 the
    largest is fixed at 1 and the others are rescaled. Grouped and transposed convolutions
    use the shape of the stored weight.

    Returns
    -------
    Kept count of each layer, in execution order.
    """
    prior = [erk_prior(layer) for layer in problem.layers]
    densities = water_fill(prior, problem.sizes, problem.keep)
    return round_to_budget(densities, problem.sizes, problem.keep)


ERK = Rule("erk", erk, needs="shapes", colour="orange", rank=1)
