"""The class scores in a network's output, for what is compared with labels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sparsemend.errors import SparsemendError
from sparsemend.evaluation.judges.kl import says_classes
from sparsemend.evaluation.outputs import floating_outputs, pick, rows


def logits(output: Any, part: str | int | None = None) -> Tensor:
    """Class scores as [predictions, classes].

    Classes are dimension 1 of [N, K] and of maps [N, K, H, W]; the last one of [N, T, K].

    Parameters
    ----------
    output, part
        As of :func:`class_scores`.

    Raises
    ------
    SparsemendError
        As there.
    """
    return rows(class_scores(output, part))


def class_scores(output: Any, part: str | int | None = None) -> Tensor:
    """Class scores in the shape in which the network gives them.

    Of several tensors that which is called logits (or ``out``), else the first of a tuple.

    Parameters
    ----------
    output
        What the network returned.
    part
        Which part of it they are, where that is not clear, see :class:`.jury.Criterion`.

    Raises
    ------
    SparsemendError
        If there are none, or several tensors and nothing says which.
    """
    found = floating_outputs(pick(output, "" if part is None else str(part)))
    named = [one for one in found if says_classes(one)]
    if not named and len(found) > 1 and found[0].name:
        raise SparsemendError(
            "several tensors in the network's output could be class scores",
            ", ".join(one.path for one in found),
            "a tensor [N, classes], or an output with logits",
            "name one with output=...",
        )
    chosen = next(iter(named or found), None)
    if chosen is None or chosen.tensor.dim() < 2:
        raise SparsemendError(
            "the network's output is not understood as logits",
            type(output).__name__,
            "a tensor [N, classes], or an output with logits",
        )
    return chosen.tensor
