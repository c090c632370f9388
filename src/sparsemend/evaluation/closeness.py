"""How close a network is to its dense parent, without labels (method, section 5)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import (
    Batch,
    Batches,
    call,
    check_unlabelled,
    evaluation_mode,
    iterate,
    no_batches,
)
from sparsemend.finite import check_outputs


@dataclass(frozen=True)
class Agreement:
    """Closeness of two networks' predictions.

    Attributes
    ----------
    kl
        Mean KL(reference ‖ model) of the softmax outputs, in nats; 0 is perfect.
    top1
        Fraction of predictions with the same most likely class.
    count
        Number of predictions.
    """

    kl: float
    top1: float
    count: int

    def __str__(self) -> str:
        return f"KL {self.kl:.4f}, same top-1 class {100 * self.top1:.2f} % of {self.count:,}"


def agreement(model: nn.Module, reference: nn.Module, batches: Batches) -> Agreement:
    """Compare a network with its dense parent on unlabelled inputs.

    Parameters
    ----------
    model
        The pruned or repaired network.
    reference
        The dense network.
    batches
        Unlabelled batches, or one tensor [N, ...]; best inputs that the repair did not see.

    Raises
    ------
    SparsemendError
        If there are no batches, they carry labels, or the outputs' shapes differ.
    """
    total = _Total()
    with evaluation_mode(model, reference):
        for index, batch in enumerate(iterate(batches)):
            check_unlabelled(batch, f"batches[{index}]")
            total.add(finite_logits(model, batch), finite_logits(reference, batch))
    return total.result()


class Reference:
    """A dense network's outputs on fixed inputs, to compare many networks with.

    Held in memory: the inputs, and the dense network's logits.

    Parameters
    ----------
    dense
        The dense network; runs once, here.
    batches
        Unlabelled batches.
    """

    def __init__(self, dense: nn.Module, batches: Sequence[Batch]) -> None:
        self._batches = batches
        with evaluation_mode(dense):
            self._expected = [finite_logits(dense, batch) for batch in batches]

    def agreement(self, model: nn.Module) -> Agreement:
        """What :func:`agreement` gives for the dense network and these inputs."""
        total = _Total()
        with evaluation_mode(model):
            for batch, expected in zip(self._batches, self._expected, strict=True):
                total.add(finite_logits(model, batch), expected)
        return total.result()


class _Total:
    """Sums over predictions."""

    def __init__(self) -> None:
        self._divergence, self._same, self._count = 0.0, 0, 0

    def add(self, ours: Tensor, theirs: Tensor) -> None:
        if ours.shape != theirs.shape:
            raise SparsemendError(
                "the networks' outputs differ in shape", list(ours.shape), str(theirs.shape)
            )
        self._divergence += float(divergence(ours, theirs))
        self._same += int((ours.argmax(dim=1) == theirs.argmax(dim=1)).sum())
        self._count += ours.shape[0]

    def result(self) -> Agreement:
        if not self._count:
            raise no_batches("batches")
        return Agreement(self._divergence / self._count, self._same / self._count, self._count)


def divergence(ours: Tensor, theirs: Tensor) -> Tensor:
    """Sum of KL(theirs ‖ ours) over predictions, in nats; differentiable.

    Parameters
    ----------
    ours, theirs
        Logits, [predictions, classes].
    """
    expected = F.log_softmax(theirs.double(), dim=1)
    predicted = F.log_softmax(ours.double(), dim=1)
    terms = expected.exp() * (expected - predicted)
    # 0 · log 0 is 0: classes that a network rules out with -inf do not count. NaN does.
    return terms.where(expected != -math.inf, 0.0).sum()


def finite_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The network's logits on a batch; raises where they hold NaN or +infinity."""
    found = logits(call(model, batch))
    check_outputs(model, found, lambda: call(model, batch))
    return found


def logits(output: Any) -> Tensor:
    """The logits of a network's output as [predictions, classes].

    Takes a tensor, something with ``logits``, a mapping with ``"logits"``, or a tuple's first.
    Classes are dimension 1 of [N, K] and of images [N, K, H, W]; the last one of [N, T, K].
    """
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple | list) and output:
        output = output[0]
    if not isinstance(output, Tensor) or output.dim() < 2:
        raise SparsemendError(
            "the network's output is not understood as logits",
            type(output).__name__,
            "a tensor [N, classes], or an output with logits",
        )
    classes_last: Tensor = output.movedim(1, -1) if output.dim() > 3 else output
    return classes_last.reshape(-1, classes_last.shape[-1])
