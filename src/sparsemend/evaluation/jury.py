"""Which judge each tensor of a network's output gets, decided on one output of the dense network.

With judge ``"auto"`` every floating-point tensor is judged, unless one is named:

- ``kl``: what is called logits (also ``out`` and ``aux``, as torchvision's segmentation networks
  call them), and a tensor [N, C ≥ 2] that has no name and is the first to be judged: the whole
  output, the first of a tuple, or the place that was named.
- ``cosine``: what is called an embedding.
- ``relative``: everything else, such as [N], [N, 1], and [N, T, D] and [N, C, H, W] without a
  name; where these are class scores, say ``judge="kl"``.

The loss is the mean over the tensors, each in the unit of its judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sparsemend.errors import RAISED, SparsemendError, raised_by
from sparsemend.evaluation.judges import AUTO, DIRECTION, JUDGES, Judge, LossFunction, check_judge
from sparsemend.evaluation.outputs import Output, floating_outputs, pick, rows
from sparsemend.execution.batches import Batch

# Of one output and batch, what each judge sees: rows [samples, features], or the output as it is.
Parts = tuple[Any, ...]


@dataclass(frozen=True)
class Seat:
    """A judge and what it judges.

    Attributes
    ----------
    path
        Where in the output that is, see :class:`.outputs.Output`.
    judge
        How it is judged.
    features
        Columns of the rows; 0 where the judge takes the output as it is.
    """

    path: str
    judge: Judge
    features: int = 0

    def read(self, output: Any, batch: Batch) -> Any:
        """What the judge sees of an output."""
        part = pick(output, self.path)
        if self.judge.whole:
            return part
        if not isinstance(part, Tensor):
            raise SparsemendError(
                f"{self} is no tensor on every batch", type(part).__name__, "a tensor on all"
            )
        return rows(part, batch)

    def losses(self, dense: Any, sparse: Any) -> Tensor:
        """Losses of all samples, [samples] or [samples, ...], differentiable by the second.

        Raises
        ------
        SparsemendError
            If the two differ in shape, or a function of the user's gives no losses.
        """
        if not self.judge.whole:
            if dense.shape != sparse.shape:
                raise SparsemendError(
                    f"the networks' outputs differ in shape{self._where}",
                    list(sparse.shape),
                    str(dense.shape),
                )
            return self.judge.loss(dense, sparse)
        try:
            found: Any = self.judge.loss(dense, sparse)
        except RAISED as error:  # it is the user's
            raise SparsemendError(
                f"judge {self.judge.name!r} failed: {raised_by(error)}",
                allowed="a function (dense output, sparse output) → loss per sample [N]",
            ) from error
        if not isinstance(found, Tensor) or found.dim() != 1 or not found.is_floating_point():
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise SparsemendError(
                f"judge {self.judge.name!r} gives no loss per sample",
                shape,
                "a floating-point tensor [N]",
            )
        return found

    @property
    def _where(self) -> str:
        return f" ({self})" if self.path else ""

    def __str__(self) -> str:
        return f"output {self.path!r}" if self.path else "the output"


@dataclass(frozen=True)
class Jury:
    """The judges of one network's outputs.

    Attributes
    ----------
    seats
        One for every tensor that is judged.
    """

    seats: tuple[Seat, ...]

    def read(self, output: Any, batch: Batch) -> Parts:
        """What the judges see of an output.

        Raises
        ------
        SparsemendError
            If it lacks something that is judged.
        """
        return tuple(seat.read(output, batch) for seat in self.seats)

    def losses(self, dense: Parts, sparse: Parts) -> list[Tensor]:
        """Losses of all samples of every output, see :meth:`Seat.losses`."""
        return [seat.losses(*pair) for seat, *pair in zip(self.seats, dense, sparse, strict=True)]

    def scores_classes(self, features: int) -> bool:
        """Whether outputs of so many features are judged as scores of classes, all of them."""
        found = [seat.judge.classes for seat in self.seats if seat.features == features]
        return bool(found) and all(found)

    def by_direction(self) -> Jury:
        """The same, but of class scores the direction alone: not how sure a network is."""
        return Jury(
            tuple(
                replace(seat, judge=DIRECTION) if seat.judge.classes else seat
                for seat in self.seats
            )
        )

    @property
    def judge(self) -> str:
        """Names of the judges, each once, as in ``"kl+relative"``."""
        return "+".join(dict.fromkeys(seat.judge.name for seat in self.seats))

    @property
    def label(self) -> str:
        """What the loss is called in texts."""
        labels = {seat.judge.label for seat in self.seats}
        return labels.pop() if len(labels) == 1 else "loss"


@dataclass(frozen=True)
class Criterion:
    """How outputs are to be judged, as it was asked for.

    Attributes
    ----------
    judge
        ``"auto"``, the name of a judge, or a function (dense output, sparse output) → loss per
        sample [N], which gets the outputs as the network returned them.
    output
        The only part of the output to judge, as a key, an attribute, a place or a dotted path of
        these; empty or None for all of it.

    Raises
    ------
    SparsemendError
        For an unknown judge.
    """

    judge: str | LossFunction = AUTO
    output: str | int | None = None

    def __post_init__(self) -> None:
        check_judge(self.judge)
        object.__setattr__(self, "output", "" if self.output is None else str(self.output))

    @property
    def name(self) -> str:
        """The judge in texts and stores."""
        if isinstance(self.judge, str):
            return self.judge
        return str(getattr(self.judge, "__name__", type(self.judge).__name__))

    def jury(self, output: Any, batch: Batch = None) -> Jury:
        """The judges of a network, from one output of the dense network.

        Raises
        ------
        SparsemendError
            If there is nothing to judge, or the judge that was named cannot judge it.
        """
        path = str(self.output)
        part = pick(output, path)
        if not isinstance(self.judge, str):
            judge = Judge(self.name, self.name, self.judge, lambda _: True, "anything", whole=True)
            seat = Seat(path, judge)
            _check_direction(seat, part)
            return Jury((seat,))
        if _is_one_entry_per_input(part):
            raise SparsemendError(
                "the network's output is a list of mappings, as detectors return one for every "
                "input: their sizes vary from network to network",
                fix="pass a function as judge: (dense output, sparse output) → loss per sample [N]",
            )
        found = floating_outputs(part, path)
        if not found:
            raise SparsemendError(
                "there is nothing to judge: the network's output holds no floating-point tensor "
                "[N, ...]",
                type(part).__name__,
                "a tensor, or mappings, tuples and dataclasses of tensors",
                "or pass a function as judge: (dense output, sparse output) → loss per sample [N]",
            )
        return Jury(tuple(self._seat(one, batch) for one in found))

    def _seat(self, output: Output, batch: Batch) -> Seat:
        seen = rows(output.tensor, batch)
        judge = self._judge(output, seen)
        seat = Seat(output.path, judge, seen.shape[1])
        if not judge.fits(seen):
            raise SparsemendError(
                f"judge {judge.name!r} cannot judge {seat}",
                list(output.tensor.shape),
                judge.allowed,
                "name another judge, or with output=... another part of the output",
            )
        return seat

    def _judge(self, output: Output, seen: Tensor) -> Judge:
        if self.judge != AUTO:
            return JUDGES[str(self.judge)]
        return next(j for j in JUDGES.values() if j.claims(output) and j.fits(seen))


def _check_direction(seat: Seat, output: Any) -> None:
    """Refuse a function that gives a score, which is larger for outputs that are closer."""
    equal = seat.losses(output, output)
    if not isinstance(output, Tensor) or not output.is_floating_point():
        return
    try:
        nothing = seat.losses(output, torch.zeros_like(output))
    except SparsemendError:  # it need not take other outputs than networks give
        return
    if len(equal) and len(equal) == len(nothing) and bool((equal > nothing).all()):
        raise SparsemendError(
            f"judge {seat.judge.name!r} gives a score, no loss",
            f"{float(equal.mean()):.4g} for equal outputs, {float(nothing.mean()):.4g} for zeros",
            "a loss, smaller for outputs that are closer",
            "return 1 - score, or -score",
        )


def _is_one_entry_per_input(part: Any) -> bool:
    if isinstance(part, Tensor | str) or not isinstance(part, Sequence):
        return False
    return bool(part) and all(isinstance(entry, Mapping) for entry in part)
