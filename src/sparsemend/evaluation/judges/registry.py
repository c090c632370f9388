"""The known judges by name; a new one is one more entry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.evaluation.judges.cosine import COSINE
from sparsemend.evaluation.judges.direction import DIRECTION
from sparsemend.evaluation.judges.judge import Judge
from sparsemend.evaluation.judges.kl import KL
from sparsemend.evaluation.judges.relative import RELATIVE

# "auto" asks them in this order.
JUDGES: dict[str, Judge] = {judge.name: judge for judge in (KL, DIRECTION, COSINE, RELATIVE)}

AUTO = "auto"

LossFunction = Callable[[Any, Any], Tensor]


def judge_names() -> tuple[str, ...]:
    """Names of the known judges, ``"auto"`` first."""
    return (AUTO, *JUDGES)


def check_judge(judge: str | LossFunction) -> None:
    """Refuse what is neither the name of a judge nor a function.

    Raises
    ------
    SparsemendError
        Names the known ones.
    """
    if callable(judge) or judge in judge_names():
        return
    raise SparsemendError(
        "unknown judge",
        judge,
        f"{', '.join(map(repr, judge_names()))}, or a function (dense output, sparse output) → "
        "loss per sample [N]",
        did_you_mean(judge, judge_names()),
    )
