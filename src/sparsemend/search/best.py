"""Repair ``best``: try the sensible endings and keep the closest to the dense network.

Recalibrating BatchNorm after a reconstruction can help or hurt (least squares shrinks the
variance on purpose), and at mild sparsities a light repair can win. The judge is
KL(dense ‖ repaired) on inputs that no repair saw (method, section 5).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from sparsemend.evaluation import Agreement, agreement
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerSet
from sparsemend.repair import (
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

    A single batch serves as both.
    """
    if len(batches) == 1:
        return batches, batches
    count = max(1, len(batches) // 5)
    return batches[:-count], batches[-count:]


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

    Endings: ``reconstruct``, the same followed by ``batchnorm``; where the masks are free, a
    second reconstruction whose choice weighs channels by their importance in the first one's
    result (``reconstruct-again``); where they are given, ``variance`` and ``batchnorm`` alone.

    Parameters
    ----------
    pruned
        The pruned network; unchanged. Still dense where ``support`` has no masks.
    heldout
        Inputs for the judge, none of them in ``batches``.
    dense, batches, layers, support, progress
        As in a single repair.
    """
    best: Best | None = None
    tried: dict[str, float] = {}
    for repair, model, outcome in _endings(pruned, dense, batches, layers, support, progress):
        closeness = agreement(model, dense, heldout)
        tried[repair] = closeness.kl
        if best is None or closeness.kl < best.agreement.kl:
            best = Best(model, repair, outcome, closeness, tried)
    assert best is not None
    return best


def _endings(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: LayerSet,
    support: Support,
    progress: bool | None,
) -> Iterator[tuple[str, nn.Module, Outcome]]:
    recalibrates = has_running_norms(pruned)
    first = copy.deepcopy(pruned)
    plan = parse_repair("reconstruct")
    outcome = run_plan(first, dense, batches, layers, plan, "sequential", support, progress)
    yield "reconstruct", first, outcome
    if recalibrates:
        model = copy.deepcopy(first)
        recalibrate(model, batches, progress=progress)
        yield "reconstruct+batchnorm", model, outcome
    if support.masks is None:
        importance = channel_importance(first, layers)
        model = copy.deepcopy(dense)
        again = reconstruct(
            model,
            dense,
            batches,
            layers,
            None,
            support.counts,
            progress=progress,
            importance=importance,
        )
        yield "reconstruct-again", model, Outcome(again.masks, again.added_biases)
        return
    for repair in ("variance", *(["batchnorm"] if recalibrates else [])):
        model, plan = copy.deepcopy(pruned), parse_repair(repair)
        outcome = run_plan(model, dense, batches, layers, plan, "sequential", support, progress)
        yield repair, model, outcome
