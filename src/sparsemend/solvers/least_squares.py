"""Least squares for every row of a weight matrix on that row's own kept columns.

All problems are in normalised columns (unit diagonal of the input covariance), so a ridge is a
fraction of the mean input variance. Shapes: covariance [groups, d, d], rows [groups, rows, d].
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from sparsemend.solvers.cholesky import factorise
from sparsemend.solvers.units import unit_of

# Elements of the row systems that are gathered and factorised together: 256 MiB with their places.
_GATHER_ELEMENTS = 1 << 24
# Conjugate gradients, used where factorising every row's system would cost more: residuals
# relative to the right-hand side at which they stop, and how many steps they may and usually do
# take, to these and to coarse tolerances; and from a start, in float32, where each costs half.
_CG_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_CG_ITERATIONS = 200
_CG_EXPECTED, _CG_COARSE, _CG_NEAR = 100, 12 / 2, 30 / 2
# After so many steps from a start, rows whose residual is still above this are factorised.
_CG_PATIENCE, _CG_ENOUGH = 40, 1e-3
# What the calls of one step cost beside its products, in multiply-adds.
_CG_CALLS = 2_000_000
# What a multiply-add of many small float64 factorisations, and an element gathered for them, cost
# in multiply-adds of a large product; measured at supports of 100 to 700 columns.
_FACTORISED = 8
_GATHERED = 400


def solve_on_support(
    covariance: Tensor,
    target: Tensor,
    mask: Tensor,
    ridge: float,
    start: Tensor | None = None,
    tolerance: float | None = None,
) -> Tensor:
    """Minimise wᵀ Sigma w − 2 aᵀ w + ridge ‖w‖² over the kept columns of every row.

    Rows with small supports are solved exactly by Cholesky factorisation, in batches of
    similar size. Where the factorisations would cost more than iterating on the shared
    covariance, conjugate gradients solve all rows together; from a start, in float32, and what
    40 steps do not solve is factorised.

    Parameters
    ----------
    covariance
        Sigma, [groups, d, d], symmetric, unit diagonal.
    target
        a = Cov[x, z] of every row, [groups, rows, d].
    mask
        Kept columns, boolean, [groups, rows, d].
    ridge
        Added to the diagonal; makes singular systems solvable.
    start
        Where iterating begins, such as the solution of a similar problem; default zero.
    tolerance
        Residual beside the right-hand side at which iterating stops; default 1e-6 in float64,
        1e-4 in float32 and from a start. What is minimised is then above its minimum by about
        its square.

    Returns
    -------
    Tensor
        [groups, rows, d], exactly zero outside the mask.
    """
    steps = _CG_EXPECTED if start is None else _CG_NEAR
    if _factorising_cost(mask) <= _iterating_cost(mask, steps if tolerance is None else _CG_COARSE):
        return _factorise(covariance, target, mask, ridge)
    unit = unit_of(target)
    scaled = target / unit
    if start is None:
        return conjugate_gradient(covariance, scaled, mask, ridge, None, tolerance) * unit
    single, scaled = covariance.float(), scaled.float()
    near = (start / unit).float()
    most = _CG_PATIENCE if tolerance is None else _CG_ITERATIONS
    found = conjugate_gradient(single, scaled, mask, ridge, near, tolerance, most)
    solution = found.to(target.dtype) * unit
    if tolerance is not None:
        return solution
    left = (scaled - found @ single - ridge * found) * mask
    slow = left.norm(dim=2, keepdim=True) > _CG_ENOUGH * (scaled * mask).norm(dim=2, keepdim=True)
    if not slow.any():
        return solution
    return torch.where(slow, _factorise(covariance, target, mask & slow, ridge), solution)


def _factorising_cost(mask: Tensor) -> float:
    sizes = mask.sum(dim=2).double()
    return float((_FACTORISED * sizes.pow(3) / 3 + _GATHERED * sizes.pow(2)).sum())


def _iterating_cost(mask: Tensor, steps: float) -> float:
    groups, rows, width = mask.shape
    return float(steps * (2 * groups * rows * width**2 + _CG_CALLS))


def nested_gains(
    covariance: Tensor, target: Tensor, entries: Tensor, supports: int, ridge: float
) -> Tensor:
    """aᵀ (Sigma_KK + ridge I)⁻¹ a of every row, on nested supports K, by one factorisation.

    With the columns in the order in which they enter, the Cholesky factor L of a smaller support's
    system is the first block of that of the largest one: gains are partial sums of squares of L⁻¹a.

    Parameters
    ----------
    covariance, target, ridge
        As of :func:`solve_on_support`.
    entries
        Number of the first support that holds each weight, [groups, rows, d]; those that none
        holds have ``supports`` or more.
    supports
        How many supports.

    Returns
    -------
    Tensor
        [supports, groups, rows], float64: what is minimised is, at its minimum, less this.
    """
    groups, rows, width = entries.shape
    gains = torch.zeros(supports, groups * rows, dtype=torch.float64, device=target.device)
    flat_entries, flat_target = entries.reshape(-1, width), target.reshape(-1, width)
    for chosen, group, size in _batches(entries < supports):
        order = torch.sort(flat_entries[chosen], dim=1, stable=True)
        index, number = order.indices[:, :size], order.values[:, :size]
        there = number < supports
        factor = _factors(covariance, group, index, there, ridge)
        right = (flat_target[chosen].gather(1, index) * there).double().unsqueeze(2)
        solved = torch.linalg.solve_triangular(factor, right, upper=False).squeeze(2)
        steps = solved.new_zeros(len(chosen), supports + 1)
        steps.scatter_add_(1, number.clamp(max=supports).long(), solved.square())
        gains[:, chosen] = steps[:, :supports].cumsum(dim=1).T
    return gains.reshape(supports, groups, rows)


def factorised_supports(
    entries: Tensor, supports: int, tolerance: float | None = None, solved: float = 1.0
) -> int:
    """How many of nested supports, from the smallest on, cost least by one factorisation.

    Of the others about the fraction ``solved`` is solved for one by one. The other parameters as
    of :func:`nested_gains` and :func:`solve_on_support`.
    """
    steps = _CG_EXPECTED if tolerance is None else _CG_COARSE
    each = solved * _iterating_cost(entries < supports, steps)
    costs = [supports * each]
    for number in range(1, 1 + supports):
        costs.append(_factorising_cost(entries < number) + (supports - number) * each)
    return costs.index(min(costs))


def _factorise(covariance: Tensor, target: Tensor, mask: Tensor, ridge: float) -> Tensor:
    width = mask.shape[2]
    flat_mask, flat_target = mask.reshape(-1, width), target.reshape(-1, width)
    solution = torch.zeros_like(flat_target)
    for chosen, group, size in _batches(mask):
        # Kept columns first, in order.
        kept = flat_mask[chosen].to(torch.uint8)
        columns = torch.sort(kept, dim=1, descending=True, stable=True)
        index, there = columns.indices[:, :size], columns.values[:, :size].bool()
        factor = _factors(covariance, group, index, there, ridge)
        right = (flat_target[chosen].gather(1, index) * there).double().unsqueeze(2)
        values = torch.cholesky_solve(right, factor).squeeze(2) * there
        values = values.to(target.dtype)
        solution[chosen] = torch.zeros_like(flat_target[chosen]).scatter_(1, index, values)
    return solution.reshape(mask.shape)


def _batches(mask: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
    """Rows of similar size, of all groups together: their numbers, groups, and the largest size.

    Rows on an empty support are left out.
    """
    rows, counts = mask.shape[1], mask.sum(dim=2).flatten()
    order = torch.argsort(counts, stable=True)
    sorted_counts = counts[order].tolist()
    start = 0
    while start < len(sorted_counts):
        stop = _batch_end(sorted_counts, start)
        size = sorted_counts[stop - 1]
        if size:
            chosen = order[start:stop]
            yield chosen, chosen.div(rows, rounding_mode="floor"), size
        start = stop


def _batch_end(counts: list[int], start: int) -> int:
    """Rows from ``start`` on whose padding to one size wastes little, within the memory."""
    limit = max(int(1.25 * counts[start]), counts[start] + 8)
    stop = start + 1
    while (
        stop < len(counts)
        and counts[stop] <= limit
        and (stop + 1 - start) * counts[stop] ** 2 <= _GATHER_ELEMENTS
    ):
        stop += 1
    return stop


def _factors(
    covariance: Tensor, group: Tensor, index: Tensor, there: Tensor, ridge: float
) -> Tensor:
    """Lower Cholesky factors [n, size, size], float64, of every row's own columns.

    Parameters
    ----------
    covariance, ridge
        As of :func:`solve_on_support`.
    group
        Group of every row, [n].
    index
        Its columns, [n, size].
    there
        Which of these count, in every row the first; the rest become unit equations of their own.
    """
    width = covariance.shape[2]
    places = (group[:, None] * width + index).mul_(width)[:, :, None] + index[:, None, :]
    system = covariance.flatten().index_select(0, places.flatten()).view(places.shape).double()
    common = int(there.sum(dim=1).min())  # only behind these are there fewer in some rows
    system[:, common:].mul_(there[:, common:, None])
    system[:, :, common:].mul_(there[:, None, common:])
    diagonal = system.diagonal(dim1=1, dim2=2)
    diagonal.add_(torch.where(there, ridge, 1.0).to(system.dtype))
    return factorise(system, 10 * max(ridge, 1e-9), growth=10)


def conjugate_gradient(
    covariance: Tensor,
    target: Tensor,
    mask: Tensor,
    ridge: float,
    start: Tensor | None = None,
    tolerance: float | None = None,
    most: int = _CG_ITERATIONS,
) -> Tensor:
    """The same minimiser by conjugate gradients on all rows at once, products with Sigma shared.

    Stops when every row's residual is below the tolerance times its right-hand side, or after
    ``most`` steps.
    """
    tolerance = _CG_TOLERANCE[covariance.dtype] if tolerance is None else tolerance
    kept = mask.to(covariance.dtype)
    right = target * kept
    goal = tolerance**2 * right.square().sum(dim=2, keepdim=True)

    def product_of(weights: Tensor) -> Tensor:
        return (weights @ covariance + ridge * weights) * kept

    if start is None:
        solution, residual = torch.zeros_like(right), right.clone()
    else:
        solution = start * kept
        residual = right - product_of(solution)
    direction = residual.clone()
    square = residual.square().sum(dim=2, keepdim=True)
    for _ in range(most):
        product = product_of(direction)
        curvature = (direction * product).sum(dim=2, keepdim=True)
        step = torch.where(curvature > 0, square / curvature, 0.0)
        solution += step * direction
        residual -= step * product
        new_square = residual.square().sum(dim=2, keepdim=True)
        if bool((new_square <= goal).all()):
            break
        direction = residual + torch.where(square > 0, new_square / square, 0.0) * direction
        square = new_square
    return solution
