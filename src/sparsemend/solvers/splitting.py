"""Choose a support for reconstruction by operator splitting with a shrinking budget.

The method of ADMM pruning with gradual masks (arXiv 2401.02938) and ALPS (arXiv 2406.07831):
the weights are split into a dense copy V that fits the targets and a sparse copy Z that keeps
the k largest entries of the whole layer; a dual variable U pulls them together while the
penalty rho grows and the budget shrinks. Where a pattern allows some masks only, the sparse copy
keeps what the pattern says of the largest entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from sparsemend.solvers.cholesky import factorise


@dataclass(frozen=True)
class Schedule:
    """Constants of the splitting; columns and rows are normalised, so they carry no units.

    Attributes
    ----------
    iterations
        Number of sweeps.
    shrink
        Sweeps over which the budget falls geometrically from all weights to k.
    penalty, growth, every
        rho, and its growth factor every so many sweeps.
    relaxation
        alpha in [1, 2): how far the dense copy goes beyond where the fit takes it, seen from the
        sparse one (over-relaxation; Boyd et al. 2011, section 3.4.3). At 1.6 half as many sweeps
        end as close as at 1.
    settle
        Sweeps without the dual variable that follow, each a step from the sparse copy towards the
        fit. The dual speaks louder for a weight the longer that is left out, so that at the end
        some are kept that are worth less than others: with inputs that are not correlated, too.
    anew
        Whether to start from the dense weights, or from where the choice before has ended.
    """

    iterations: int = 30
    shrink: int = 20
    penalty: float = 0.05
    growth: float = 1.69
    every: int = 5
    relaxation: float = 1.6
    settle: int = 2
    anew: bool = True

    @property
    def penalties(self) -> tuple[float, ...]:
        """rho of every stretch of sweeps; schedules that have one in common share its inverse."""
        stretches = range(math.ceil(self.iterations / self.every) - 1)
        return tuple(accumulate(stretches, lambda rho, _: rho * self.growth, initial=self.penalty))


THOROUGH = Schedule()
# A fraction of the sweeps, with the same penalties; leaves most of the closeness.
ROUGH = Schedule(iterations=18, shrink=12, every=3, settle=0)
# For targets that have changed a little: the full budget and the last penalty from the start.
FURTHER = Schedule(
    iterations=8, shrink=1, penalty=ROUGH.penalties[-1], every=8, settle=0, anew=False
)

# rho of sweeps without a dual variable: far smaller, and their steps go too far where inputs are
# correlated; far larger, and they change nothing.
_SETTLING = THOROUGH.penalties[3]

# Of the splitting whose budget falls through many counts: sweeps while it falls to 1/e, and rho.
_PACE = 5
_PENALTY = ROUGH.penalties[-1]
# Below this a weight is worth nothing; its square is still a number in float32.
_LEAST = 1e-18

_HELD_BYTES = 1 << 30
# Columns from which on a CPU triangular systems are solved as fast as products are computed.
_SOLVED_FROM = 1024


@dataclass
class Splitting:
    """Where the choice of a layer's support has ended, for the next one to go on from.

    Attributes
    ----------
    sparse, dual
        Z and U, [groups, rows, d], in the units of the targets; None before the first choice.
    """

    sparse: Tensor | None = None
    dual: Tensor | None = None


class ShiftedInverses:
    """Products with (Sigma + shift I)⁻¹ of one layer's inputs, for all supports chosen on them.

    Holds what was computed for every shift, as long as it takes no more than 1 GiB in all: the
    inverse, or of wide layers on a CPU its Cholesky factor. To solve with that takes as long
    as a product with the inverse there, which would take twice the factor's time to compute.

    Parameters
    ----------
    covariance
        Sigma, [groups, d, d].
    """

    def __init__(self, covariance: Tensor) -> None:
        self.covariance = covariance
        self._solves = covariance.device.type == "cpu" and covariance.shape[-1] >= _SOLVED_FROM
        self._held: dict[float, Tensor] = {}

    def solver(self, shift: float) -> Callable[[Tensor], Tensor]:
        """The product of rows [groups, n, d] with the inverse for a shift."""
        return partial(self._apply, self._prepared(shift))

    def _prepared(self, shift: float) -> Tensor:
        """The inverse for a shift, [groups, d, d], or its lower Cholesky factor."""
        found = self._held.get(shift)
        if found is None:
            shifted = self.covariance.clone()
            shifted.diagonal(dim1=1, dim2=2).add_(shift)
            found = factorise(shifted, shift, growth=2)
            if not self._solves:
                found = torch.cholesky_inverse(found)
            if (len(self._held) + 1) * found.nbytes <= _HELD_BYTES:
                self._held[shift] = found
        return found

    def _apply(self, prepared: Tensor, rows: Tensor) -> Tensor:
        if not self._solves:
            return rows @ prepared
        half = torch.linalg.solve_triangular(prepared.mT, rows, upper=True, left=False)
        solved: Tensor = torch.linalg.solve_triangular(prepared, half, upper=False, left=False)
        return solved


def largest_entries(values: Tensor, kept: int) -> Tensor:
    """Boolean mask of the ``kept`` largest |values| of the whole tensor; ties by index."""
    flat = values.abs().flatten()
    if kept >= flat.numel():
        return torch.ones_like(values, dtype=torch.bool)
    if kept == 0:
        return torch.zeros_like(values, dtype=torch.bool)
    threshold = _kth_largest(flat, kept)
    mask = flat >= threshold
    excess = int(mask.sum()) - kept
    if excess:  # of those that equal the threshold the last ones go
        mask[(flat == threshold).nonzero().flatten()[-excess:]] = False
    return mask.reshape(values.shape)


def _kth_largest(flat: Tensor, k: int) -> Tensor | float:
    if flat.device.type == "cpu" and flat.dtype in (torch.float32, torch.float64):
        # Several times as fast as topk, and needed in every sweep.
        place = flat.numel() - k
        return float(np.partition(flat.detach().numpy(), place)[place])
    return flat.topk(k, sorted=False).values.min()


def choose_support(
    inverses: ShiftedInverses,
    target: Tensor,
    start: Tensor,
    kept: int,
    ridge: float,
    schedule: Schedule = THOROUGH,
    largest: Callable[[Tensor, int], Tensor] = largest_entries,
    splitting: Splitting | None = None,
) -> Tensor:
    """A mask with exactly ``kept`` entries on which the rows can be reconstructed well.

    Parameters
    ----------
    inverses
        Of Sigma in normalised columns.
    target
        a = Cov[x, z] of every row, rows weighted as they are to compete, [groups, rows, d].
    start
        Dense weights in the same units, where the splitting starts.
    kept
        Exact number of entries to keep over the whole layer.
    ridge
        Of the least-squares problem.
    schedule
        Constants; the default is ``THOROUGH``, tuned on residual networks at 80 to 95 % sparsity.
    largest
        (values, count) → boolean mask of the largest entries, where not every mask will do: of
        exactly ``kept`` entries for that count, and for larger ones of at least as many.
    splitting
        Where the choice before has ended, which a schedule that is not ``anew`` goes on from; it
        is left where this one ends.

    Returns
    -------
    Tensor
        Boolean mask, [groups, rows, d].
    """
    total = target.numel()
    if kept >= total:
        return torch.ones_like(target, dtype=torch.bool)
    splitting = Splitting() if splitting is None else splitting
    if schedule.anew or splitting.sparse is None or splitting.dual is None:
        sparse, dual = start.clone(), torch.zeros_like(start)
    else:
        sparse, dual = splitting.sparse, splitting.dual.clone()
    for stretch, penalty in enumerate(schedule.penalties):
        solve = inverses.solver(ridge + penalty)
        if stretch:
            dual /= schedule.growth
        first = stretch * schedule.every
        for sweep in range(first, min(first + schedule.every, schedule.iterations)):
            combined = _combined(solve, target, penalty, schedule.relaxation, sparse, dual)
            share = min(1.0, (sweep + 1) / schedule.shrink)
            budget = max(kept, round(total * (kept / total) ** share)) if kept else 0
            mask = largest(combined, budget)
            sparse = combined * mask
            dual = combined - sparse
    splitting.sparse, splitting.dual = sparse, dual
    if schedule.settle:
        solve = inverses.solver(ridge + _SETTLING)
        for _ in range(schedule.settle):
            sparse = solve(target + _SETTLING * sparse)
            sparse = sparse * largest(sparse, kept)
    return largest(sparse, kept)


def nested_supports(
    inverses: ShiftedInverses,
    target: Tensor,
    start: Tensor,
    kept: Sequence[int],
    ridge: float,
    largest: Callable[[Tensor, int], Tensor] = largest_entries,
) -> Tensor:
    """Supports of many counts from one splitting, each within the next larger one.

    The budget falls geometrically from all weights to the smallest count, and later supports are
    taken from the weights that are kept where it passes one that is asked for. Down to 1 % of the
    weights, however many counts lie on the way, that is less work than one choice by ``THOROUGH``,
    with one inverse. What least squares leaves on these supports is a little more than on those
    that are chosen for each count (docs/reconstruction.md).

    Parameters
    ----------
    inverses, target, start, ridge, largest
        As of :func:`choose_support`.
    kept
        K ascending counts.

    Returns
    -------
    Tensor
        Number of the first support that holds each weight, [groups, rows, d], K where none does;
        uint8 if they fit, int64 otherwise. Held on the way are six tensors of that shape in the
        type of the target, and the inverse.
    """
    total = target.numel()
    dtype = torch.uint8 if len(kept) < 256 else torch.int64
    entries = torch.full_like(target, len(kept), dtype=dtype)
    allowed = torch.ones_like(target, dtype=torch.bool)
    sparse, dual = start.clone(), torch.zeros_like(start)
    solve, before = inverses.solver(ridge + _PENALTY), total
    for number, count in reversed(list(enumerate(kept))):
        for budget in _budgets(before, count):
            combined = _combined(solve, target, _PENALTY, THOROUGH.relaxation, sparse, dual)
            mask = largest(combined.abs().clamp_(min=_LEAST) * allowed, budget)
            sparse = combined * mask
            dual = combined - sparse
            if budget == count:
                allowed = mask
        before = min(before, count)
        if count:
            entries[allowed] = number
    return entries


def _combined(
    solve: Callable[[Tensor], Tensor],
    target: Tensor,
    penalty: float,
    relaxation: float,
    sparse: Tensor,
    dual: Tensor,
) -> Tensor:
    """V + U of one sweep, of which the next sparse copy keeps the largest entries."""
    dense = solve(target + penalty * (sparse - dual))
    return torch.lerp(sparse, dense, relaxation) + dual


def _budgets(before: int, count: int) -> list[int]:
    """Budget of every sweep on the way from one count down to another above 0."""
    if not 0 < count < before:
        return []
    sweeps = max(1, round(_PACE * math.log(before / count)))
    return [round(before * (count / before) ** (done / sweeps)) for done in range(1, 1 + sweeps)]
