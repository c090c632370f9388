"""What the rest of the library needs to know of one way to judge an output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from sparsemend.evaluation.outputs import Output


@dataclass(frozen=True)
class Score:
    """What was measured of one output.

    Attributes
    ----------
    loss
        Mean over its samples; 0 is perfect.
    top1
        Fraction of samples with the same most likely class; None without classes.
    chance
        The same of guessing, 1 / number of classes; None without classes.
    constant
        Loss of the best output that does not depend on the input; None where it is not known.
    """

    loss: float
    top1: float | None = None
    chance: float | None = None
    constant: float | None = None


def against_constant(score: Score) -> float | None:
    """1 − loss / loss of the best constant output; None where that is not known or is 0."""
    return 1 - score.loss / score.constant if score.constant else None


def _claims_nothing(output: Output) -> bool:  # noqa: ARG001
    return False


@dataclass(frozen=True)
class Judge:
    """A way to say how far a tensor is from the dense network's; lower is better.

    Judges see an output as rows [samples, features], see :func:`.outputs.rows`.

    Attributes
    ----------
    name
        In Python and in stores.
    label
        What the loss is called in texts.
    loss
        (dense, sparse) → [samples] or [samples, ...], whose sum over all but the first dimension
        is the loss of a sample; differentiable by the second.
    fits
        Whether it can judge these dense rows.
    allowed
        What it can judge, in words.
    claims
        Whether ``"auto"`` gives it this output; the first in the registry that claims it gets it.
    classes
        Whether features are scores of classes, so that there is a most likely one.
    sums
        Dense rows → sums over samples, which add up over batches; None where nothing is to be
        known of all dense outputs.
    constant
        (sums, number of samples) → mean loss of the best constant output.
    relative
        Whether losses are given as multiples of ``constant``.
    recovery
        What is left of what the dense network does beyond a constant output or guessing, 1 at
        loss 0 (method, section 6); None where that is not defined.
    whole
        Whether ``loss`` takes the outputs as the network returned them, not rows.
    """

    name: str
    label: str
    loss: Callable[[Any, Any], Tensor]
    fits: Callable[[Tensor], bool]
    allowed: str
    claims: Callable[[Output], bool] = _claims_nothing
    classes: bool = False
    sums: Callable[[Tensor], Tensor] | None = None
    constant: Callable[[Tensor, int], float] | None = None
    relative: bool = False
    recovery: Callable[[Score], float | None] = against_constant
    whole: bool = False
