"""Top-1 accuracy on labelled batches."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from sparsemend.boundary import public
from sparsemend.errors import SparsemendError
from sparsemend.evaluation.scores import logits
from sparsemend.execution.batches import (
    Batches,
    batch_count,
    call,
    evaluation_mode,
    no_batches,
    split_labels,
)
from sparsemend.execution.layout import Layout, fastest_layout
from sparsemend.execution.offload import offloading
from sparsemend.execution.rows import loaded
from sparsemend.finite import check_outputs
from sparsemend.progress import progress_bar, progress_shown

# A label that does not count, as of PyTorch's cross entropy.
IGNORED = -100


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a network; ``float()`` of it is the accuracy.

    Attributes
    ----------
    top1
        Fraction of inputs whose most likely class is the label.
    count
        Number of labels that count.
    """

    top1: float
    count: int

    def __float__(self) -> float:
        return self.top1

    def __str__(self) -> str:
        return f"{100 * self.top1:.2f} % top-1 on {self.count:,} inputs"


@public
def evaluate(
    model: nn.Module,
    labelled_batches: Batches,
    *,
    output: str | int | None = None,
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Measure top-1 accuracy.

    Parameters
    ----------
    model
        The network; unchanged, run in evaluation mode.
    labelled_batches
        Iterable of (inputs, labels) with integer labels [N], or one for every token or pixel, as
        tensors or arrays, or of mappings whose ``labels`` or ``label`` they are; one such pair; or
        a data set of PyTorch.
        Labels of -100 do not count.
    output
        Which part of the output the class scores are, as a key, an attribute, a place or a
        dotted path of these; by default what is called logits, else the first.
    offload
        Compute on this device, as in :func:`sparsemend.compress`.
    progress
        Show a progress bar; default on a terminal.

    Raises
    ------
    SparsemendError
        If there are no batches or no labels that count, a batch has no integer labels, as many
        as do not fit, or numbers that are no class of the network, or its outputs are no class
        scores, NaN, or +infinity.
    """
    labelled_batches = loaded(labelled_batches)
    hits, count, batches = 0, 0, 0
    total = batch_count(labelled_batches)
    layout: Layout | None = None
    with (
        progress_shown(progress),
        offloading(offload, model),
        evaluation_mode(model),
        progress_bar("evaluate", total) as advance,
    ):
        for index, batch in enumerate(labelled_batches):
            where = f"labelled_batches[{index}]"
            inputs, labels = split_labels(batch, where)
            layout = layout or fastest_layout(model, inputs)
            scores = logits(call(model, layout(inputs)), output)
            counted = _counted(scores, labels, where)
            scores = scores[counted]
            check_outputs(model, scores, partial(call, model, inputs))
            predicted = scores.argmax(dim=1)
            hits += int((predicted == labels.flatten().to(predicted.device)[counted]).sum())
            count += len(predicted)
            batches += 1
            advance()
    if not batches:
        raise no_batches("labelled_batches")
    if not count:
        raise SparsemendError(f"no label counts: all are {IGNORED}", allowed="some class numbers")
    return Evaluation(hits / count, count)


def _counted(scores: Tensor, labels: Tensor, where: str) -> Tensor:
    """Which predictions have a label that counts, [predictions]; refuses what does not fit."""
    if len(scores) != labels.numel():
        raise SparsemendError(
            f"{where} has labels of shape {list(labels.shape)}",
            allowed=f"one label for each of the {len(scores)} predictions",
        )
    if scores.shape[1] < 2:
        raise SparsemendError(
            "the network's output has one column, so it has no most likely class",
            allowed="scores of two or more classes",
        )
    flat = labels.flatten().to(scores.device)
    counted: Tensor = flat != IGNORED
    if bool((flat[counted] < 0).any()):
        raise SparsemendError(
            f"{where} has labels below 0",
            int(flat[counted].min()),
            f"class numbers from 0, and {IGNORED} for what does not count",
        )
    classes = scores.shape[1]
    if bool((flat[counted] >= classes).any()):
        raise SparsemendError(
            f"{where} has labels of classes that the network does not score",
            int(flat[counted].max()),
            f"class numbers from 0 to {classes - 1}",
            "give the labels that the network was trained with",
        )
    return counted
