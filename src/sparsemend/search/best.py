"""Repair ``best``: try the sensible endings and keep the closest to the dense network.

Recalibrating BatchNorm after a reconstruction can help or hurt (least squares shrinks the
variance on purpose), and at mild sparsities a light repair can win. The judge is
KL(dense ‖ repaired) on inputs that no repair saw (method, section 5).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from sparsemend.evaluation import Agreement, agreement
from sparsemend.execution.batches import Batch, batch_size, mirrored, split_inputs
from sparsemend.layers import LayerSet
from sparsemend.repairs import (
    Outcome,
    Support,
    channel_importance,
    has_running_norms,
    parse_repair,
    recalibrate,
    reconstruct,
    run_plan,
)


def hold_out(batches: list[Batch]) -> tuple[list[Batch], list[Batch]]:
    """The first batches to repair with, and the last fifth, at least one, to judge on.

    A single batch is cut in the same way; a single input serves as both.
    """
    if len(batches) == 1 and batch_size(batches[0]) < 2:
        return batches, batches
    return split_inputs(batches, lambda n: n - max(1, n // 5))


@dataclass(frozen=True)
class Best:
    """The winning repair.

    Attributes
    ----------
    model
        The repaired network.
    repair
        The winner's formula.
    outcome
        Its masks and added biases.
    agreement
        Its closeness on the held-out inputs.
    tried
        Formula → held-out KL of every ending.
    """

    model: nn.Module
    repair: str
    outcome: Outcome
    agreement: Agreement
    tried: Mapping[str, float]


def repair_best(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    heldout: Sequence[Batch],
    layers: LayerSet,
    support: Support,
    progress: bool | None = None,
) -> Best:
    """Try every ending on a copy and return the best.

    Endings: ``reconstruct``; the same followed by ``batchnorm``; where inputs are images,
    ``reconstruct-mirrored``: from mirrored copies as well; where the masks are free, ``-again``
    after the better of these: a second reconstruction whose choice weighs channels by their
    importance in the first one's result; where masks are given, ``variance`` and ``batchnorm``
    alone.

    Held in memory: with images, twice the batches; a few copies of the network.

    Parameters
    ----------
    pruned
        The pruned network; unchanged. Still dense where ``support`` has no masks.
    heldout
        Inputs for the judge, none of them in ``batches``.
    dense, batches, layers, support, progress
        As in a single repair.
    """
    trials = _Trials(pruned, dense, heldout, layers, support, progress)
    recalibrates = has_running_norms(pruned)
    name, inputs = "reconstruct", batches
    model, outcome = trials.reconstruct(name, inputs)
    if recalibrates:
        recalibrated = copy.deepcopy(model)
        recalibrate(recalibrated, batches, progress=progress)
        trials.judge("reconstruct+batchnorm", recalibrated, outcome)
        del recalibrated
    doubled = mirrored(batches)
    if doubled is not None:
        other, _ = trials.reconstruct("reconstruct-mirrored", doubled)
        if trials.tried["reconstruct-mirrored"] < trials.tried[name]:
            name, inputs, model = "reconstruct-mirrored", doubled, other
    if support.masks is None:
        trials.reconstruct(f"{name}-again", inputs, channel_importance(model, layers))
    else:
        for repair in ("variance", *(["batchnorm"] if recalibrates else [])):
            trials.run(repair, batches)
    assert trials.best is not None
    return trials.best


class _Trials:
    """Runs repairs on copies and keeps the one that is closest to the dense network."""

    def __init__(
        self,
        pruned: nn.Module,
        dense: nn.Module,
        heldout: Sequence[Batch],
        layers: LayerSet,
        support: Support,
        progress: bool | None,
    ) -> None:
        self._pruned, self._dense, self._heldout = pruned, dense, heldout
        self._layers, self._support, self._progress = layers, support, progress
        self.tried: dict[str, float] = {}
        self.best: Best | None = None

    def judge(self, repair: str, model: nn.Module, outcome: Outcome) -> None:
        closeness = agreement(model, self._dense, self._heldout)
        self.tried[repair] = closeness.kl
        best = self.best
        # A network whose outputs are NaN is better than none, and worse than any other.
        if best is None or closeness.kl < best.agreement.kl or math.isnan(best.agreement.kl):
            self.best = Best(model, repair, outcome, closeness, self.tried)

    def reconstruct(
        self,
        name: str,
        batches: Sequence[Batch],
        importance: Mapping[str, Tensor] | None = None,
    ) -> tuple[nn.Module, Outcome]:
        model = copy.deepcopy(self._pruned)
        done = reconstruct(
            model,
            self._dense,
            batches,
            self._layers,
            self._support.masks,
            self._support.counts,
            progress=self._progress,
            importance=importance,
        )
        outcome = Outcome(done.masks, done.added_biases)
        self.judge(name, model, outcome)
        return model, outcome

    def run(self, repair: str, batches: Sequence[Batch]) -> None:
        model, plan = copy.deepcopy(self._pruned), parse_repair(repair)
        outcome = run_plan(
            model,
            self._dense,
            batches,
            self._layers,
            plan,
            "sequential",
            self._support,
            self._progress,
        )
        self.judge(repair, model, outcome)
