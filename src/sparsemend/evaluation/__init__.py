"""How good a network is: accuracy with labels, agreement with the dense network without."""

from sparsemend.evaluation.accuracy import Evaluation, evaluate
from sparsemend.evaluation.closeness import Agreement, Reference, agreement, divergence, logits

__all__ = ["Agreement", "Evaluation", "Reference", "agreement", "divergence", "evaluate", "logits"]
