"""Judge ``kl``: divergence of class probabilities (method, sections 5 and 9)."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from sparsemend.evaluation.judges.judge import Judge, Score
from sparsemend.evaluation.outputs import Output

# What networks call their class scores; the last two are those of torchvision's segmentation.
_NAMES = ("out", "aux")


def loss(dense: Tensor, sparse: Tensor) -> Tensor:
    """Terms of KL(dense ‖ sparse) of the softmax outputs, in nats, [samples, classes]."""
    expected = F.log_softmax(dense.double(), dim=1)
    predicted = F.log_softmax(sparse.double(), dim=1)
    terms = expected.exp() * (expected - predicted)
    # 0 · log 0 is 0: classes that a network rules out with -inf do not count. NaN does.
    return terms.where(expected != -math.inf, 0.0)


def says_classes(output: Output) -> bool:
    """Whether an output's name says that it is class scores."""
    return output.name.endswith("logits") or output.name in _NAMES


def _claims(output: Output) -> bool:
    if says_classes(output):
        return True
    return not output.name and output.first and output.tensor.dim() == 2


def _recovery(score: Score) -> float | None:
    if score.top1 is None or score.chance is None:
        return None
    return (score.top1 - score.chance) / (1 - score.chance)


KL = Judge(
    "kl",
    "KL",
    loss,
    fits=lambda rows: rows.shape[1] > 1,
    allowed="scores of two or more classes, [N, C], [N, T, C] or [N, C, H, W]",
    claims=_claims,
    classes=True,
    recovery=_recovery,
)
