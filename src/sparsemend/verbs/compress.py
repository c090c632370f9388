"""The whole job in one call: calibrate, diagnose, allocate, prune, repair, compare."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from contextlib import nullcontext

import torch
from torch import nn

from sparsemend.allocation import Allocation
from sparsemend.boundary import public
from sparsemend.calibration import Calibration
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.evaluation import LossFunction
from sparsemend.execution.batches import Batches, all_alike, materialise
from sparsemend.execution.copies import copied
from sparsemend.execution.offload import offloading
from sparsemend.execution.restoring import restored_on_error
from sparsemend.execution.rows import as_batches
from sparsemend.layers.refusals import check_copy, refuse_unsupported
from sparsemend.progress import progress_shown
from sparsemend.recipe import Recipe, says_itself
from sparsemend.recipe.defaults import JUDGE, NEW_BIASES, PATTERN, SCOPE
from sparsemend.session import Session
from sparsemend.targets import read_target
from sparsemend.verbs.compression import CompressionResult
from sparsemend.verbs.plan import Plan
from sparsemend.verbs.planning import placed, rerun, run_planned
from sparsemend.verbs.running import run_recipe
from sparsemend.verbs.settling import costed, settled


@public
def compress(
    model: nn.Module,
    batches: Batches,
    sparsity: float | None = None,
    rule: str | Allocation | Mapping[str, float] | None = None,
    mask: str | None = None,
    repair: str | None = None,
    *,
    target_flops: float | None = None,
    target_latency: str | None = None,
    target_size: str | None = None,
    scope: str = SCOPE,
    heldout: Batches | None = None,
    budget: float | str | None = None,
    plan: Plan | None = None,
    judge: str | LossFunction = JUDGE,
    output: str | int | None = None,
    new_biases: bool = NEW_BIASES,
    distill: float | str | None = None,
    calibration: Calibration | None = None,
    diagnosis: Diagnosis | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    pattern: str = PATTERN,
    inplace: bool = False,
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> CompressionResult:
    """Prune a trained network to a budget and repair it, without labels.

    Parameters
    ----------
    model
        The dense network; unchanged unless ``inplace``.
    batches
        Unlabelled calibration batches, or one tensor or array [N, ...]; held in memory. Or a
        ``DataLoader`` or a data set of PyTorch, whose labels are left out (integers [N], or
        whatever the network takes no argument for), a ``datasets.Dataset`` or a list of
        dictionaries, one an input, whose columns have the names of the network's arguments.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1); or instead one of the targets, or
        neither with a pattern n:m.
    rule
        Without a rule and a repair, both are planned for the time of ``budget``. Else an
        allocation rule, see :func:`sparsemend.allocate`; or ``"auto"``: a search, started from
        all of these, for the allocation whose repaired network is closest to the dense one; or
        an allocation, or a mapping from layers (names, classes or patterns, as of ``include``) to
        the share of its weights that each keeps, in [0, 1]. All other layers then stay dense; a
        name counts before a pattern, and of several patterns the last one. With either of these
        two the sparsity is left out, or has to agree.
    mask
        ``"magnitude"`` or ``"activation"`` (see :func:`sparsemend.prune`), or ``"gradual"``:
        chosen jointly with the reconstruction. Default: gradual with a repair that
        reconstructs, else magnitude.
    repair
        Repair formula, see :func:`sparsemend.repair`. With a rule, by default ``"best"``: the
        ending that is closest to the dense network on ``heldout``.
    target_flops
        The most that the sparse network may multiply, as a share of what the dense one does, in
        (0, 1]. Counted are the weights of all layers that could be pruned, on the first batch;
        products without weights, as attention has them, are not.
    target_latency
        The longest that one input may take on the sparse runtime, on one thread of this machine,
        as ``"2ms"`` or ``"500us"``. Pruned copies are timed; the network must be float32.
    target_size
        The largest that the packed file of :func:`sparsemend.export` may be, as ``"100KiB"``;
        found with pruned copies, so that the repaired network misses it by a little.
    scope
        ``"sequential"`` or ``"one-shot"``.
    heldout
        Unlabelled inputs that the repair must not see, on which to measure agreement. Without
        them rule ``auto`` and repair ``best`` set the last fifth of the batches aside, and
        others are measured on the calibration inputs.
    budget
        How long all may take, ``"10min"`` by default: the first steps are measured, what fits is
        said at once and done. For rule ``auto``, how long it may search: a number of repairs
        (default 40), or a time. An interrupt (Ctrl-C) ends either with the best so far.
    plan
        What was done before, from the ``plan`` of a result: the same is done again, to the bit, in
        the place of rule, mask, repair, scope and budget.
    judge, output
        How closeness to the dense network is judged, and on which part of the network's output
        alone, as in :func:`sparsemend.agreement`. By default every floating-point tensor of the
        output is judged as its name and shape suggest. Checked on one batch before any work.
    new_biases
        Give a bias to layers that have neither one nor a BatchNorm behind them, so that the
        repair can shift their outputs. By default no parameter is added, so the result loads
        into the original architecture; such layers are fitted without a shift.
    distill
        How long repair ``distill`` trains: a number of steps (default 400), or a time such as
        ``"2min"``, which other machines will not reproduce. With repair ``best``: its best ending
        is trained, too, and kept where it is closer on ``heldout``. An interrupt (Ctrl-C) ends
        the training with the best so far.
    calibration, diagnosis
        Results of earlier calls on the same network and inputs, to save their time.
    include, exclude
        Which layers to prune, by name, pattern or class, as in :func:`sparsemend.discover`; the
        others stay as they are and do not count in the sparsity.
    pattern
        Which weights can be kept. ``"free"``: any. ``"2:4"``, ``"1:8"`` or any n:m: n of every m
        consecutive input channels of an output channel, at one position of the kernel; that gives
        every layer, and so all, the sparsity 1 − n/m (rule ``uniform``). Layers whose input
        channels are no multiple of m stay dense; ``coverage`` of the result names them.
        ``"block:1x4"`` or any RxC: blocks of R output by C input channels at one position of the
        kernel, smaller at the edges. ``"channel"``: whole output channels, the same in all layers
        whose outputs meet in a sum, as far as the traced graph shows it. Blocks and channels go
        with any sparsity and rule; a layer keeps the whole blocks or channels next to what the rule
        gives it, and all together as near to the sparsity as that can be.
    inplace
        Change the model that was passed; on an error it is as it was, for which a copy of its
        parameters and buffers is held besides the one that serves as the dense network.
    offload
        A device such as ``"cuda"``, for networks that are larger than it: the network stays on the
        CPU, and an operation's weights are on the device while it computes there. Held on the
        device are the weights of one operation at a time, the moments of the layer at work, and of
        every batch what the network needs at that layer; where gradients are taken (``distill``,
        searches), all weights and the activations of one batch. Every batch moves every weight, so
        that large batches are best. The result is on the CPU.
    progress
        Show progress bars; default on a terminal.

    Returns
    -------
    CompressionResult
        The sparse network, masks, allocation, label-free metrics and timings.

    Raises
    ------
    SparsemendError
        For bad input; see the functions named above. If not exactly one of sparsity and targets is
        given, or a target cannot be reached, with the smallest value that can.
    """
    if plan is not None and pattern == PATTERN:
        pattern = plan.pattern
    target = read_target(
        sparsity,
        says_itself(rule, pattern),
        target_flops=target_flops,
        target_latency=target_latency,
        target_size=target_size,
    )
    if plan is not None:
        said = {"rule": rule, "mask": mask, "repair": repair, "budget": budget}
        _refuse_beside_plan({name: value for name, value in said.items() if value is not None})
    recipe = Recipe(
        sparsity,
        rule,
        mask,
        repair,
        scope,
        budget,
        judge,
        output,
        new_biases,
        include,
        exclude,
        pattern,
        distill,
        target,
    )
    refuse_unsupported(model)
    recipe.check(model)
    with progress_shown(progress), offloading(offload, model):
        batches = as_batches(model, batches)
        heldout = None if heldout is None else as_batches(model, heldout)
        if inplace:  # the session sees a copy, which cannot show what is wrong with copies
            batches = materialise(batches)
            check_copy(model, batches[0])
        session = Session.open(
            # In place, the dense network is a copy.
            copied(model) if inplace else model,
            batches,
            heldout,
            calibration=calibration,
            criterion=recipe.criterion,
            chosen=recipe.chosen,
            judging=recipe.judges,
        )
        with restored_on_error(model) if inplace else nullcontext():
            into = model if inplace else None
            # What may have to be made once more is not put into the place of the dense network.
            first = into if target is None or target.kind.settles is None else None
            if plan is not None:
                result = rerun(session, recipe, plan, into=into)
            elif recipe.planned:
                result = run_planned(session, recipe, into=first)
            else:
                result = run_recipe(session, recipe, diagnosis=diagnosis, into=first)
            if target is not None and plan is None:
                result = settled(result, session, recipe, target)
            else:
                result = costed(result, session, target)
            if all_alike(session.seen):
                warnings.warn(
                    "all calibration inputs are the same: rules and repairs have seen nothing of "
                    "how the network's inputs differ; pass a few hundred real ones",
                    SparsemendWarning,
                    stacklevel=3,
                )
            return result if into is None else placed(result, into)


def _refuse_beside_plan(said: dict[str, object]) -> None:
    if said:
        raise SparsemendError(
            "a plan says rule, mask, repair and budget itself", said, fix="leave these out"
        )
