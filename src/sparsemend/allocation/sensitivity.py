"""Least noise after repair, each layer's weighed by what the network's output suffers from it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from sparsemend.allocation.lamp import lamp
from sparsemend.allocation.problem import Problem
from sparsemend.allocation.rr import least_damage
from sparsemend.allocation.rule import Rule
from sparsemend.errors import SparsemendError

_FLOOR = 0.3
# What is left of a layer's damage is not taken to be more: there would be no signal at all.
_MOST = 0.99


def sensitivity(problem: Problem, *, floor: float = _FLOOR) -> tuple[int, ...]:
    """Minimise Σ_l s_l · noise_l(density_l) under the budget and above a floor.

    s_l is the loss of the network's output per relative variance of error in layer l, see
    :func:`sparsemend.diagnose`; noise = residual / (1 − residual) is what is left of a layer's
    damage in units of the signal that is left. The residual itself saturates, so that a sum of it
    gives up layers in favour of others; that is why every layer keeps, besides, at least a part of
    what ``lamp`` would give it. The rest is divided as by ``rr``. Where no error is heard in the
    output at all, all layers count the same.

    Parameters
    ----------
    floor
        Least density of a layer as a share of its density under ``lamp``, in [0, 1].

    Returns
    -------
    Kept count of each layer, in execution order.

    Raises
    ------
    SparsemendError
        As ``rr``; if the diagnosis has no sensitivities, or the floor is out of range.
    """
    if not 0 <= floor <= 1:
        raise SparsemendError("floor of rule 'sensitivity' is out of range", floor, "0 to 1")
    densities, residual = problem.curves("residual", rule="sensitivity")
    weights = problem.sensitivities(rule="sensitivity")
    left = np.minimum(residual, _MOST)
    noise = left / (1 - left)
    if weights.max() > 0:
        noise = noise * weights[:, None]
    share = Fraction(str(floor))
    # A part of the budget, rounded up: at most what lamp keeps, which is 1 or more.
    least = [max(1, math.ceil(share * count)) for count in lamp(problem)] if floor else []
    return least_damage(problem, densities, noise, least)


SENSITIVITY = Rule("sensitivity", sensitivity, needs="sensitivities", colour="sky", rank=7)
