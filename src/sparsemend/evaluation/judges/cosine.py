"""Judge ``cosine``: 1 − cosine of the angle between embeddings (method, section 9)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from sparsemend.evaluation.judges.judge import Judge
from sparsemend.evaluation.outputs import Output

_NAMES = ("embedding", "embeddings", "embeds", "embed")


def loss(dense: Tensor, sparse: Tensor) -> Tensor:
    """1 − cosine of every sample, [samples]; 1 where one of the two is zero, 0 where both are."""
    ours, theirs = _directions(sparse), _directions(dense)
    # Half the squared distance of unit vectors: exactly 0 where they are equal.
    distance = (ours - theirs).square().sum(dim=1) / 2
    lone = (sparse == 0).all(dim=1) != (dense == 0).all(dim=1)
    return distance.where(~lone, 2 * distance)


def _directions(embeddings: Tensor) -> Tensor:
    return F.normalize(embeddings.double(), dim=1)


def _sums(dense: Tensor) -> Tensor:
    """Σ y / ‖y‖, [features]."""
    return _directions(dense).sum(dim=0)


def _spread(sums: Tensor, count: int) -> float:
    """Mean loss of the mean direction."""
    return 1 - float(sums.norm()) / count


def _claims(output: Output) -> bool:
    return output.name.endswith(_NAMES)


COSINE = Judge(
    "cosine",
    "1 - cosine",
    loss,
    fits=lambda rows: rows.shape[1] > 1,
    allowed="embeddings of two or more dimensions, [N, D], [N, T, D] or [N, D, H, W]",
    claims=_claims,
    sums=_sums,
    constant=_spread,
)
