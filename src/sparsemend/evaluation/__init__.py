"""How good a network is: accuracy with labels, agreement with the dense network without."""

from sparsemend.evaluation._agreement import Agreement, Reference, agreement, divergence, logits
from sparsemend.evaluation._evaluate import Evaluation, evaluate

__all__ = ["Agreement", "Evaluation", "Reference", "agreement", "divergence", "evaluate", "logits"]
