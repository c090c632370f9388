"""Judge ``relative``: E‖y − y'‖² / E‖y − mean y‖² (method, section 9).

Each sample has its own numerator. The denominator is one number, of the dense outputs on all
inputs that are judged on, so that losses of samples and batches average.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparsemend.evaluation.judges.judge import Judge
from sparsemend.evaluation.outputs import Output

# Share of the mean square below which outputs count as constant.
_TINY = 1e-12


def loss(dense: Tensor, sparse: Tensor) -> Tensor:
    """Squared differences, [samples, features]."""
    return (dense.double() - sparse.double()).square()


def _sums(dense: Tensor) -> Tensor:
    """Σ y, then Σ ‖y‖², [features + 1]."""
    wide = dense.double()
    return torch.cat([wide.sum(dim=0), wide.square().sum().reshape(1)])


def _variance(sums: Tensor, count: int) -> float:
    """E‖y − mean y‖²; where the outputs do not vary, E‖y‖², and where that is 0, 1.

    They do not vary for a single sample, and where the network gives the same for all.
    """
    mean, energy = sums[:-1] / count, float(sums[-1]) / count
    variance = energy - float(mean.square().sum())
    return (variance if variance > _TINY * energy else energy) or 1.0


def _claims(output: Output) -> bool:  # noqa: ARG001
    return True  # what no judge before it has claimed


RELATIVE = Judge(
    "relative",
    "relative squared error",
    loss,
    fits=lambda rows: True,  # noqa: ARG005
    allowed="tensors [N, ...]",
    claims=_claims,
    sums=_sums,
    constant=_variance,
    relative=True,
)
