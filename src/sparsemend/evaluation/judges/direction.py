"""Judge ``direction``: 1 − cosine of the angle between class scores, each less its mean.

Neither adding a number to all scores of a sample nor multiplying them with one changes it, so it
does not see how sure of itself a network is. KL does: near chance, a network whose outputs are
merely less sure is closer to the dense one by KL, whatever it says.
"""

from __future__ import annotations

from torch import Tensor

from sparsemend.evaluation.judges.cosine import loss as cosine_loss
from sparsemend.evaluation.judges.judge import Judge
from sparsemend.evaluation.judges.kl import KL


def loss(dense: Tensor, sparse: Tensor) -> Tensor:
    """1 − cosine of every sample's centred scores, [samples]."""
    return cosine_loss(_centred(dense), _centred(sparse))


def _centred(scores: Tensor) -> Tensor:
    wide = scores.double()
    return wide - wide.mean(dim=1, keepdim=True)


DIRECTION = Judge(
    "direction",
    "1 - cosine of scores",
    loss,
    fits=KL.fits,
    allowed=KL.allowed,
    classes=True,
    recovery=KL.recovery,
)
