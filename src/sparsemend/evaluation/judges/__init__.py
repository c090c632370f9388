"""Judges: how far a sparse network's output is from the dense one's, one file each."""

from sparsemend.evaluation.judges.direction import DIRECTION
from sparsemend.evaluation.judges.judge import Judge, Score
from sparsemend.evaluation.judges.registry import (
    AUTO,
    JUDGES,
    LossFunction,
    check_judge,
    judge_names,
)

__all__ = [
    "AUTO",
    "DIRECTION",
    "JUDGES",
    "Judge",
    "LossFunction",
    "Score",
    "check_judge",
    "judge_names",
]
