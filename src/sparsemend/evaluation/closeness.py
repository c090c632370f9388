"""How close a network is to its dense parent, without labels (method, sections 5 and 9)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from sparsemend.boundary import public
from sparsemend.evaluation.judges import AUTO, LossFunction, Score
from sparsemend.evaluation.jury import Criterion, Jury, Parts, Seat
from sparsemend.execution.batches import (
    Batch,
    Batches,
    call,
    check_unlabelled,
    evaluation_mode,
    iterate,
    no_batches,
)
from sparsemend.execution.layout import Layout, fastest_layout
from sparsemend.execution.offload import offloading, returned
from sparsemend.execution.rows import as_batches
from sparsemend.finite import NotFiniteError, check_finite, check_outputs


@dataclass(frozen=True)
class OutputLoss:
    """What was found of one output.

    Attributes
    ----------
    output
        Where it is, as a dotted path; empty for the whole output.
    judge, label
        Name of its judge, and what that calls its loss.
    loss
        Mean over its samples.
    """

    output: str
    judge: str
    label: str
    loss: float


@dataclass(frozen=True)
class Agreement:
    """Closeness of two networks' outputs.

    Attributes
    ----------
    loss
        Mean over all outputs that were judged, each in the unit of its judge; 0 is perfect.
    judge
        Names of the judges, as in ``"kl"`` or ``"kl+relative"``.
    kl
        Mean KL(reference ‖ model) of the softmax outputs, in nats; None unless all outputs were
        judged as class scores.
    top1
        Fraction of predictions with the same most likely class; None unless all outputs were
        judged as class scores.
    count
        Number of samples, which are predictions, tokens or pixels, of all outputs together.
    losses
        What was found of each output.
    recovery
        What is left of what the reference does beyond a constant output (of class scores: beyond
        guessing, by ``top1``), mean over outputs; 1 is perfect, None where it is not defined.
    """

    loss: float
    judge: str
    kl: float | None
    top1: float | None
    count: int
    losses: tuple[OutputLoss, ...] = field(default=(), compare=False)
    recovery: float | None = None

    @property
    def label(self) -> str:
        """What the loss is called in texts."""
        labels = {found.label for found in self.losses} or {"KL" if self.judge == "kl" else "loss"}
        return labels.pop() if len(labels) == 1 else "loss"

    def __str__(self) -> str:
        text = f"{self.label} {self.loss:.4f}"
        if self.top1 is not None:
            text += f", same top-1 class {100 * self.top1:.2f} % of {self.count:,}"
        else:
            text += f" over {self.count:,} samples"
        if len(self.losses) > 1:
            # Each with its label where they differ.
            parts = (
                f"{one.output} {'' if one.label == self.label else f'{one.label} '}{one.loss:.4f}"
                for one in self.losses
            )
            text += f", the mean of {', '.join(parts)}"
        elif self.losses and self.losses[0].output:
            text += f", output {self.losses[0].output!r}"
        return text


@public
def agreement(
    model: nn.Module,
    reference: nn.Module,
    batches: Batches,
    *,
    judge: str | LossFunction = AUTO,
    output: str | int | None = None,
    offload: str | torch.device | None = None,
) -> Agreement:
    """Compare a network with its dense parent on unlabelled inputs (method, section 9).

    Parameters
    ----------
    model
        The pruned or repaired network.
    reference
        The dense network.
    batches
        Unlabelled batches, as of :func:`sparsemend.compress`; best inputs that the repair did not
        see.
    judge
        ``"kl"``: KL(reference ‖ model) of class scores. ``"relative"``: E‖y − y'‖² over
        E‖y − mean y‖², the mean and the denominator of all the reference's outputs.
        ``"cosine"``: 1 − cosine, of embeddings. Or a function (reference's output, model's
        output) → loss per sample [N]. ``"auto"``: by names and shapes, see :mod:`.jury`; every
        floating-point tensor of the output is judged, and the mean is taken.
    output
        Judge this part of the output alone: a key, an attribute, a place or a dotted path of
        these, such as ``"logits"`` or ``0``.
    offload
        Compute on this device, as in :func:`sparsemend.compress`.

    Raises
    ------
    SparsemendError
        If there are no batches, they carry labels, or the outputs' shapes differ or cannot be
        judged.
    """
    criterion = Criterion(judge, output)
    tally: Tally | None = None
    layout: Layout | None = None
    with offloading(offload, model, reference), evaluation_mode(model, reference):
        for index, batch in enumerate(iterate(as_batches(model, batches))):
            check_unlabelled(batch, f"batches[{index}]")
            layout = layout or fastest_layout(reference, batch)
            ours, theirs = (call(network, layout(batch)) for network in (model, reference))
            tally = tally or Tally(criterion.jury(theirs, batch))
            jury = tally.jury
            dense = read_finite(jury, reference, theirs, batch)
            tally.add(dense, read_finite(jury, model, ours, batch))
    if tally is None:
        raise no_batches("batches")
    return tally.result()


class Reference:
    """A dense network's outputs on fixed inputs, to compare many networks with.

    Held in memory: the inputs, and of the dense network's outputs what is judged.

    Parameters
    ----------
    dense
        The dense network; runs once, here.
    batches
        Unlabelled batches.
    jury
        Its judges; by default those of judge ``"auto"``.
    """

    def __init__(
        self, dense: nn.Module, batches: Sequence[Batch], jury: Jury | None = None
    ) -> None:
        self._batches = batches
        self._expected: list[Parts] = []
        self._layout: Layout | None = None
        with evaluation_mode(dense):
            for batch in batches:
                self._layout = self._layout or fastest_layout(dense, batch)
                output = call(dense, self._layout(batch))
                jury = Criterion().jury(output, batch) if jury is None else jury
                parts = read_finite(jury, dense, output, batch)
                self._expected.append(tree_map(_returned, parts))
        self._jury = jury

    def agreement(self, model: nn.Module) -> Agreement:
        """What :func:`agreement` gives for the dense network and these inputs."""
        if self._jury is None or self._layout is None:
            raise no_batches("batches")
        tally = Tally(self._jury)
        with evaluation_mode(model):
            for batch, expected in zip(self._batches, self._expected, strict=True):
                output = call(model, self._layout(batch))
                tally.add(expected, read_finite(self._jury, model, output, batch))
        return tally.result()

    def loss(self, made: Callable[[], nn.Module]) -> float:
        """Loss of a network, to be compared with that of others.

        Parameters
        ----------
        made
            Gives the network.

        Returns
        -------
        float
            Infinite where numbers do not stay finite, in its making or in its outputs: NaN would
            compare as no worse than anything.
        """
        try:
            return self.agreement(made()).loss
        except NotFiniteError:
            return math.inf


def _returned(leaf: Any) -> Any:
    return returned(leaf) if isinstance(leaf, Tensor) else leaf


def read_finite(jury: Jury, model: nn.Module, output: Any, batch: Batch) -> Parts:
    """What the judges see of a network's output on a batch.

    Raises
    ------
    NotFiniteError
        If that holds NaN or +infinity; names the module in which they began.
    """
    parts = jury.read(output, batch)
    for seat, part in zip(jury.seats, parts, strict=True):
        if not seat.judge.whole:
            check_outputs(model, part, partial(call, model, batch))
    return parts


class Tally:
    """Sums over samples, from which losses follow.

    Parameters
    ----------
    jury
        The judges.
    """

    def __init__(self, jury: Jury) -> None:
        self.jury = jury
        self._columns = [_Column(seat) for seat in jury.seats]

    @property
    def simple(self) -> bool:
        """Whether the loss is a plain mean over the samples of one output."""
        return len(self._columns) == 1 and not self.jury.seats[0].judge.relative

    def add_dense(self, dense: Parts) -> None:
        """Take note of dense outputs alone."""
        for column, part in zip(self._columns, dense, strict=True):
            column.add_dense(part)

    def add(self, dense: Parts, sparse: Parts) -> None:
        """Take note of the outputs on one batch."""
        losses = self.jury.losses(dense, sparse)
        for seat, found in zip(self.jury.seats, losses, strict=True):
            if seat.judge.whole:  # of others the outputs were checked
                check_finite(f"the losses of judge {seat.judge.name!r}", found)
        for column, *parts in zip(self._columns, dense, sparse, losses, strict=True):
            column.add(*parts)

    def factors(self) -> list[float]:
        """What the sum of each output's losses counts, so that their sum / the first's count is
        the loss."""
        first = self._columns[0].count
        return [first / (len(self._columns) * c.count * c.unit) for c in self._columns]

    def result(self) -> Agreement:
        """What was found.

        Raises
        ------
        SparsemendError
            If there were no samples.
        """
        if not all(column.count for column in self._columns):
            raise no_batches("batches")
        seats, scores = self.jury.seats, [column.score() for column in self._columns]
        loss = statistics.fmean(score.loss for score in scores)
        same = [score.top1 for score in scores if score.top1 is not None]
        classes = len(same) == len(scores)
        kept = [seat.judge.recovery(score) for seat, score in zip(seats, scores, strict=True)]
        defined = [value for value in kept if value is not None]
        return Agreement(
            loss=loss,
            judge=self.jury.judge,
            kl=loss if all(seat.judge.name == "kl" for seat in seats) else None,
            top1=statistics.fmean(same) if classes else None,
            count=sum(column.count for column in self._columns),
            losses=tuple(
                OutputLoss(seat.path, seat.judge.name, seat.judge.label, score.loss)
                for seat, score in zip(seats, scores, strict=True)
            ),
            recovery=statistics.fmean(defined) if len(defined) == len(kept) else None,
        )


def loss_factors(jury: Jury, dense: nn.Module, batches: Iterable[Batch]) -> list[float]:
    """What each output's summed losses count in the loss, as multiples of the first's mean.

    Parameters
    ----------
    jury
        The judges.
    dense
        The dense network; runs only where losses have a unit of their own.
    batches
        Inputs that tell these units.
    """
    tally = Tally(jury)
    if tally.simple:
        return [1.0]
    with evaluation_mode(dense):
        for batch in batches:
            tally.add_dense(jury.read(call(dense, batch), batch))
    return tally.factors()


class _Column:
    """Sums of one output."""

    def __init__(self, seat: Seat) -> None:
        self._seat, self._judge = seat, seat.judge
        self._loss, self._same, self.count = 0.0, 0, 0
        self._sums: Tensor | None = None

    def add_dense(self, dense: Tensor) -> None:
        self.count += len(dense)
        if self._judge.sums is not None:
            sums = self._judge.sums(dense)
            self._sums = sums if self._sums is None else self._sums + sums

    def add(self, dense: Tensor, sparse: Tensor, losses: Tensor) -> None:
        self._loss += float(losses.sum())
        if self._judge.whole:
            self.count += len(losses)
            return
        self.add_dense(dense)
        if self._judge.classes:
            self._same += int((sparse.argmax(dim=1) == dense.argmax(dim=1)).sum())

    @property
    def _constant(self) -> float | None:
        if self._judge.constant is None or self._sums is None:
            return None
        return self._judge.constant(self._sums, self.count)

    @property
    def unit(self) -> float:
        """What losses are multiples of."""
        return (self._constant or 1.0) if self._judge.relative else 1.0

    def score(self) -> Score:
        loss = self._loss / self.count
        if not self._judge.whole:  # of a function of the user's, any number may be meant
            loss = max(loss, 0.0)  # equal outputs may come out a rounding below
        if not self._judge.classes:
            constant, unit = self._constant, self.unit
            return Score(loss / unit, constant=None if constant is None else constant / unit)
        return Score(loss, top1=self._same / self.count, chance=1 / self._seat.features)
