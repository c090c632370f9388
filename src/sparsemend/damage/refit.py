"""What least squares on the kept weights leaves of a layer's damage, from its moments alone."""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from sparsemend.calibration import InputMoments
from sparsemend.damage.closed_form import output_statistics
from sparsemend.solvers import solve_on_support
from sparsemend.solvers.least_squares import factorised_supports, nested_gains

# Only to make singular systems solvable: the residual is that of plain least squares.
_RIDGE = 1e-9
# Columns from which refits are iterated in float32, each from a larger one, to this tolerance:
# exact ones would take hours. About 1 % too much is left then at densities below a quarter, 10 %
# at a half, where little is left.
_ITERATED_FROM = 1024
_TOLERANCE = 1e-2
# Between supports of which the larger has less than this times the weights of the smaller, damage
# follows from theirs; on the default grid these are two of three.
_CLOSE, _SOLVED = 2, 1 / 3
# Damage of which there is a logarithm.
_TINY = 1e-30


def refitted_damage(dense: Tensor, masks: Iterable[Tensor], moments: InputMoments) -> Tensor:
    """Residual distortion of every channel after reconstruction on each mask, [K, C].

    v_c − a_cᵀ Sigma_KK⁻¹ a_c with a = Sigma_K: w_c (method, section 2). Of masks that each hold the
    one before, the smaller ones share one factorisation for every channel. For the others it is
    evaluated as the error variance of the refitted weights, which does not cancel. In layers of
    1,024 inputs or more these are solved for to a tolerance, and of close masks some only: the
    damage of the others is read off between them.

    Parameters
    ----------
    dense
        Weight matrix [groups, rows, d].
    masks
        K supports of the same shape.
    moments
        Of the layer's dense inputs.
    """
    moments = moments.summed()
    problem = _Refits(dense, moments)
    return torch.cat([problem.damage(*chain) for chain in _chains(masks)])


class _Refits:
    """The least-squares problems of a layer, in normalised columns."""

    def __init__(self, dense: Tensor, moments: InputMoments) -> None:
        self._dense, self._moments = dense, moments
        wide = dense.shape[2] >= _ITERATED_FROM
        self._tolerance = _TOLERANCE if wide else None
        precision = torch.float32 if wide else torch.float64
        covariance = moments.covariance.to(precision)
        diagonal = covariance.diagonal(dim1=1, dim2=2)
        alive = diagonal > 1e-12 * diagonal.amax()
        self._scale = torch.where(alive, diagonal, 1.0).sqrt().unsqueeze(1)
        self._matrix = covariance / (self._scale.mT * self._scale)
        self._start = dense.to(precision) * self._scale
        # Of what cancels, in float64.
        self._target = self._start.double() @ self._matrix.double()
        self._variance = (self._target * self._start).sum(dim=2)

    def damage(self, entries: Tensor, supports: int) -> Tensor:
        """What is left on nested supports, [supports, C]; parameters as of ``nested_gains``."""
        found = self._variance.new_zeros(supports, self._variance.numel())
        partial = int(entries.max())  # supports before the first that holds all weights
        share = 1 if self._tolerance is None else _SOLVED
        shared = factorised_supports(entries, partial, self._tolerance, share)
        gains = nested_gains(self._matrix, self._target, entries, shared, _RIDGE)
        found[:shared] = (self._variance - gains).clamp(min=0).flatten(1)
        counts = [int((entries <= number).sum()) for number in range(partial)]
        solved = self._solved(counts, shared)
        if solved:
            refits = self._refits(entries, solved[::-1])
            statistics = output_statistics(self._dense.double(), refits, self._moments)
            found[solved] = statistics.error_variance.flip(0)
        known = [*range(shared), *solved]
        odds = [max(1, count) / (entries.numel() - count) for count in counts]
        for number in sorted({*range(partial)} - {*known}):
            found[number] = _between(odds, known, found, number)
        return found

    def _solved(self, counts: Sequence[int], first: int) -> list[int]:
        """Which supports to solve for, from the first on: in wide layers few of close ones."""
        if self._tolerance is None:
            return list(range(first, len(counts)))
        solved: list[int] = []
        number = len(counts) - 1
        while number >= first:
            solved.append(number)
            # Down to the first itself, or to the last whose damage is known anyway.
            smaller = range(max(0, first - 1), number)
            close = (other for other in smaller if counts[number] < _CLOSE * counts[other])
            number = next(close, number - 1)
        return solved[::-1]

    def _refits(self, entries: Tensor, supports: Sequence[int]) -> Iterator[Tensor]:
        """Refitted weights on supports, the largest first.

        Where a tolerance is enough, each is iterated from where the one before has ended.
        """
        values, target = self._start, self._target.to(self._start.dtype)
        for number in supports:
            near = None if self._tolerance is None else values
            mask = entries <= number
            values = solve_on_support(self._matrix, target, mask, _RIDGE, near, self._tolerance)
            yield values / self._scale


def _between(odds: Sequence[float], known: Sequence[int], damage: Tensor, number: int) -> Tensor:
    """Damage [C] of a support between others: a cubic of the logarithms, within its neighbours'.

    Parameters
    ----------
    odds
        Kept weights over removed ones of every support.
    known
        The supports whose damage is known, ascending.
    damage
        Theirs, [supports, C].
    number
        The support that is asked for.
    """
    place = bisect(known, number)
    near = {math.log(odds[other]): other for other in known[max(0, place - 2) : place + 2]}
    at, total = math.log(odds[number]), torch.zeros_like(damage[number])
    for own, other in near.items():
        weight = math.prod((at - point) / (own - point) for point in near if point != own)
        total += weight * damage[other].clamp(min=_TINY).log()
    left, right = damage[known[place - 1]], damage[known[place]]
    return torch.minimum(torch.maximum(total.exp(), right), left)


def _chains(masks: Iterable[Tensor]) -> Iterator[tuple[Tensor, int]]:
    """Runs of masks that each hold the one before, as ``entries`` and ``supports``."""
    held, before, supports = None, None, 0
    for mask in masks:
        if held is None or before is None or bool((before & ~mask).any()):
            if held is not None:
                yield supports - held, supports
            held, supports = mask.to(torch.int16), 0
        else:
            held += mask
        before, supports = mask, supports + 1
    if held is not None:
        yield supports - held, supports
