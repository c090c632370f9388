"""Top-1 accuracy on labelled batches."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from sparsemend.errors import SparsemendError
from sparsemend.evaluation.closeness import finite_logits
from sparsemend.execution.batches import (
    Batches,
    batch_count,
    evaluation_mode,
    no_batches,
    split_labels,
)
from sparsemend.progress import progress_bar, progress_shown


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a network; ``float()`` of it is the accuracy.

    Attributes
    ----------
    top1
        Fraction of inputs whose most likely class is the label.
    count
        Number of inputs.
    """

    top1: float
    count: int

    def __float__(self) -> float:
        return self.top1

    def __str__(self) -> str:
        return f"{100 * self.top1:.2f} % top-1 on {self.count:,} inputs"


def evaluate(
    model: nn.Module, labelled_batches: Batches, *, progress: bool | None = None
) -> Evaluation:
    """Measure top-1 accuracy.

    Parameters
    ----------
    model
        The network; unchanged, run in evaluation mode.
    labelled_batches
        Iterable of (inputs, labels) with integer labels [N].
    progress
        Show a progress bar; default on a terminal.

    Raises
    ------
    SparsemendError
        If there are no batches, or a batch has no integer labels, or as many as do not fit.
    """
    hits, count = 0, 0
    total = batch_count(labelled_batches)
    with (
        progress_shown(progress),
        evaluation_mode(model),
        progress_bar("evaluate", total) as advance,
    ):
        for index, batch in enumerate(labelled_batches):
            inputs, labels = split_labels(batch, f"labelled_batches[{index}]")
            if labels.is_floating_point():
                raise SparsemendError(
                    f"labelled_batches[{index}] has labels of type {labels.dtype}",
                    allowed="integer class numbers",
                )
            predicted = finite_logits(model, inputs).argmax(dim=1)
            if predicted.numel() != labels.numel():
                raise SparsemendError(
                    f"labelled_batches[{index}] has labels of shape {list(labels.shape)}",
                    allowed=f"one label for each of the {predicted.numel()} predictions",
                )
            hits += int((predicted == labels.flatten().to(predicted.device)).sum())
            count += labels.numel()
            advance()
    if not count:
        raise no_batches("labelled_batches")
    return Evaluation(hits / count, count)
