"""How good a network is: accuracy with labels, closeness to the dense network without."""

from sparsemend.evaluation.accuracy import Evaluation, evaluate
from sparsemend.evaluation.closeness import (
    Agreement,
    OutputLoss,
    Reference,
    Tally,
    agreement,
    loss_factors,
    read_finite,
)
from sparsemend.evaluation.dependence import signal_ends
from sparsemend.evaluation.judges import JUDGES, LossFunction, judge_names
from sparsemend.evaluation.jury import Criterion, Jury, Parts
from sparsemend.evaluation.language import Perplexity, perplexity
from sparsemend.evaluation.scores import logits

__all__ = [
    "JUDGES",
    "Agreement",
    "Criterion",
    "Evaluation",
    "Jury",
    "LossFunction",
    "OutputLoss",
    "Parts",
    "Perplexity",
    "Reference",
    "Tally",
    "agreement",
    "evaluate",
    "judge_names",
    "logits",
    "loss_factors",
    "perplexity",
    "read_finite",
    "signal_ends",
]
