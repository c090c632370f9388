"""Density in proportion to how little of a layer's damage repair can undo."""

from __future__ import annotations

from fractions import Fraction
from typing import Literal

import numpy as np

from sparsemend.allocation.budget import round_to_budget, water_fill
from sparsemend.allocation.erk import erk_prior
from sparsemend.allocation.problem import Array, Problem
from sparsemend.allocation.rule import Rule
from sparsemend.errors import SparsemendError


def rr_density(
    problem: Problem, *, prior: Literal["uniform", "erk"] = "uniform"
) -> tuple[int, ...]:
    """density_l ∝ prior_l · RR_l(S), water-filled to at most 1.

    The simpler reading of Relative Repairability (arXiv 2605.25508): layers whose damage
    cannot be repaired keep more weights. RR_l(S) is interpolated linearly in the diagnosis at
    density 1 − S, and constant beyond the ends of its grid. Where nothing was pruned RR has no
    value (NaN): such points are left out. A negative RR, which only rounding produces, counts
    as 0; a layer with RR 0 keeps one weight until all others are dense.

    Parameters
    ----------
    prior
        ``"uniform"`` (1 for every layer) or ``"erk"``.

    Returns
    -------
    Kept count of each layer, in execution order.

    Raises
    ------
    SparsemendError
        If the diagnosis is missing, is of other layers, or has no RR for some layer at any
        density; or if the prior is unknown.
    """
    if prior not in ("uniform", "erk"):
        raise SparsemendError("unknown prior of rule 'rr-density'", prior, "'uniform' or 'erk'")
    densities, curves = problem.curves("rr", rule="rr-density")
    shares = []
    for layer, curve in zip(problem.layers, curves, strict=True):
        repairability = _at(1 - problem.sparsity, densities, curve)
        if repairability is None:
            raise SparsemendError(
                f"layer {layer.name!r} has no RR in the diagnosis: nothing was pruned there, "
                "or its weights do nothing",
                curve.tolist(),
                "a finite value at one density at least",
                "diagnose at lower densities, or use rule 'rr'",
            )
        share = Fraction(max(repairability, 0.0))
        shares.append(share * erk_prior(layer) if prior == "erk" else share)
    return round_to_budget(
        water_fill(shares, problem.sizes, problem.keep), problem.sizes, problem.keep
    )


def _at(density: float, densities: Array, curve: Array) -> float | None:
    known = np.isfinite(curve)
    if not known.any():
        return None
    return float(np.interp(density, densities[known], curve[known]))


# A layer that does nothing has no RR.
RR_DENSITY = Rule(
    "rr-density", rr_density, needs="diagnosis", may_refuse=True, colour="purple", rank=6
)
