"""What a mask rule is, and what it may look at: one layer, and how many of its weights to keep."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparsemend.calibration import LayerMoments
from sparsemend.errors import SparsemendError
from sparsemend.finite import NotFiniteError
from sparsemend.patterns import UNSTRUCTURED, Structure, Within
from sparsemend.solvers import THOROUGH, Schedule, ShiftedInverses, Splitting
from sparsemend.solvers.ranking import entries_by_score, entry_numbers, keep_mask

Needs = Literal["weights", "columns", "moments", "fit"]


@dataclass(frozen=True)
class LayerFit:
    """Least squares for a whole layer, in columns and rows of unit variance.

    Attributes
    ----------
    inverses
        Of the covariance of the inputs, shifted: shared by all choices on these inputs.
    target
        Covariance of inputs and targets, [groups, rows, d].
    start
        The dense weights in the same units, [groups, rows, d].
    ridge
        Added to the diagonal.
    schedule
        How much work a choice by operator splitting may be.
    splitting
        Where the choice before has ended, if the layer's support is chosen several times.
    """

    inverses: ShiftedInverses
    target: Tensor
    start: Tensor
    ridge: float
    schedule: Schedule = THOROUGH
    splitting: Splitting | None = None

    @property
    def covariance(self) -> Tensor:
        """Of the inputs, with a diagonal of ones, [groups, d, d]."""
        return self.inverses.covariance


@dataclass(frozen=True)
class MaskProblem:
    """One layer whose weights are to be chosen.

    Attributes
    ----------
    weight
        Dense weights, [groups, rows, d].
    moments
        Of the layer's dense inputs; None where there was no calibration.
    fit
        What the layer is to be reconstructed to; None where it is not.
    structure
        Which masks its pattern allows; by default any.
    """

    weight: Tensor
    moments: LayerMoments | None = None
    fit: LayerFit | None = None
    structure: Structure = UNSTRUCTURED


@dataclass(frozen=True)
class MaskRule:
    """How the weights of a layer are chosen that survive.

    Either ``score`` or ``choose`` says it. Rules with a score give nested masks: what is kept at
    one count is kept at every larger one.

    Attributes
    ----------
    name
        In the registry, on the command line and in stores.
    needs
        ``"weights"`` alone; ``"columns"``, as well the mean squares of the columns of the layer's
        dense inputs; ``"moments"``, all their moments; or ``"fit"``, the least-squares problem of
        the whole layer: such a rule chooses jointly with a repair that refits weights, on the
        inputs of the network repaired so far.
    score
        Problem → a score per weight [groups, rows, d]; the largest are kept, ties by index. Where
        the pattern keeps weights together only, those of the largest mean square.
    within
        Whether scores are compared over the whole layer, or within each row, all of which then
        keep the same number.
    choose
        (problem, count) → boolean mask [groups, rows, d] of exactly ``count`` weights, which has
        the pattern of ``problem.structure``.
    stand_ins
        (problem, ascending counts) → what :meth:`entries` gives, of nested masks that stand for the
        chosen ones in a diagnosis; None where it chooses for each of its counts.
    """

    name: str
    needs: Needs = "weights"
    score: Callable[[MaskProblem], Tensor] | None = None
    within: Within = "layer"
    choose: Callable[[MaskProblem, int], Tensor] | None = None
    stand_ins: Callable[[MaskProblem, Sequence[int]], Tensor] | None = None

    def __post_init__(self) -> None:
        if (self.score is None) == (self.choose is None):
            raise SparsemendError(
                f"mask rule {self.name!r} is not defined", allowed="one of score and choose"
            )

    @property
    def joint(self) -> bool:
        """Whether it chooses together with the values that reconstruct the layer."""
        return self.needs == "fit"

    def mask(self, problem: MaskProblem, kept: int) -> Tensor:
        """Boolean mask [groups, rows, d] of exactly ``kept`` weights."""
        return next(iter(self.masks(problem, [kept])))

    def masks(self, problem: MaskProblem, kept: Sequence[int]) -> list[Tensor]:
        """One mask for each of several counts.

        Raises
        ------
        SparsemendError
            If the problem lacks what the rule needs, or a mask has another number of weights or
            not the pattern.
        """
        self._check(problem)
        if self.choose is not None:
            chosen = [self.choose(problem, count) for count in kept]
            for mask, count in zip(chosen, kept, strict=True):
                self._check_chosen(mask, problem, count)
            return chosen
        if len(kept) == 1:
            return [problem.structure.best(self.scores(problem), kept[0], self.within)]
        ranks = self.ranks(problem)
        return [keep_mask(ranks, count) for count in kept]

    def ranks(self, problem: MaskProblem) -> Tensor:
        """Rank of every weight, 0 for the first to be kept, of a rule with nested masks."""
        return problem.structure.rank(self.scores(problem), self.within)

    @property
    def nested(self) -> bool:
        """Whether what is kept at one count is kept at every larger one."""
        return self.choose is None

    @property
    def has_entries(self) -> bool:
        """Whether its masks are nested, or nested ones stand for them."""
        return self.nested or self.stand_ins is not None

    def entries(self, problem: MaskProblem, kept: Sequence[int]) -> Tensor:
        """Which of the nested masks is the first to hold each weight.

        Of a rule that chooses, those that stand for its masks.

        Parameters
        ----------
        problem
            The layer.
        kept
            K ascending counts.

        Returns
        -------
        Tensor
            Numbers from 0 to K in the shape of the weight; K where no mask holds the weight.
        """
        if self.stand_ins is not None:
            self._check(problem)
            entries = self.stand_ins(problem, kept)
            for number, count in enumerate(kept):
                self._check_chosen(entries <= number, problem, count)
            return entries
        if self.score is not None and self.within == "layer" and problem.structure is UNSTRUCTURED:
            return entries_by_score(self.scores(problem), kept)
        return entry_numbers(self.ranks(problem), kept)

    def scores(self, problem: MaskProblem) -> Tensor:
        """Score of every weight [groups, rows, d], of a rule with nested masks."""
        self._check(problem)
        assert self.score is not None, "only masks that are nested have scores"
        scores: object = self.score(problem)
        shape = list(problem.weight.shape)
        if not isinstance(scores, Tensor) or list(scores.shape) != shape:
            given = list(scores.shape) if isinstance(scores, Tensor) else type(scores).__name__
            raise SparsemendError(
                f"mask {self.name!r} gives no score per weight", given, f"a tensor {shape}"
            )
        if bool(scores.sum().isnan()) and bool(scores.isnan().any()):  # the sum of ±inf is NaN, too
            raise NotFiniteError(f"scores of mask {self.name!r} are NaN")
        return scores

    def _check(self, problem: MaskProblem) -> None:
        if self.needs in ("columns", "moments") and problem.moments is None:
            raise SparsemendError(
                f"mask {self.name!r} needs the inputs' second moments",
                fix="pass calibration=sparsemend.calibrate(model, batches)",
            )
        if self.joint and problem.fit is None:
            raise SparsemendError(
                f"mask {self.name!r} is chosen jointly with the reconstructed values",
                allowed="a layer with a fit",
            )

    def _check_chosen(self, mask: Tensor, problem: MaskProblem, kept: int) -> None:
        found = int(mask.sum())
        if mask.dtype != torch.bool or mask.shape != problem.weight.shape or found != kept:
            raise SparsemendError(
                f"mask rule {self.name!r} chose {mask.dtype} {list(mask.shape)} with {found} kept",
                allowed=f"a boolean mask {list(problem.weight.shape)} with {kept} kept",
            )
        if not problem.structure.holds(mask):
            raise SparsemendError(
                f"mask rule {self.name!r} chose a mask without the pattern that was asked for",
                fix="use another mask rule, or no pattern",
            )
