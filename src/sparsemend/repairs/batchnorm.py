"""Recalibrate BatchNorm's running statistics; affine parameters stay untouched.

Mode ``exact``: running statistics become the pooled moments over all calibration inputs, each
normalisation in turn, with inputs from the already recalibrated ones before it. Pooling adds
the variance of batch means, which ``momentum=None`` would lose.
Mode ``ema``: as published repairs run it, exponential averages over a number of batches.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.boundary import public
from sparsemend.calibration.moments import ColumnMoments
from sparsemend.checks import check_int
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch, Batches, call, evaluation_mode, materialise
from sparsemend.execution.lockstep import lockstep, module_stops
from sparsemend.execution.replica import run_replica
from sparsemend.execution.restoring import restored_on_error
from sparsemend.execution.rows import as_batches
from sparsemend.finite import FIX_ACTIVATIONS, check_finite, check_network, traced
from sparsemend.progress import progress_bar, progress_shown
from sparsemend.repairs.repair import Outcome, Repair, Situation, Terms
from sparsemend.session import Session

MODES = ("exact", "ema")
EMA_MOMENTUM = 0.1
EMA_UPDATES = 20
# Fewer values of a channel say nothing of its variance.
LEAST_VALUES = 3


@public
def recalibrate(
    model: nn.Module,
    batches: Batches,
    mode: str = "exact",
    *,
    momentum: float = EMA_MOMENTUM,
    updates: int = EMA_UPDATES,
    reset: bool = False,
    progress: bool | None = None,
) -> None:
    """Recalibrate every BatchNorm that keeps running statistics, in place.

    On any error the network is as it was. Held in memory: the batches, of every batch what the
    network needs at the normalisation at work, and a copy of parameters and buffers.

    Parameters
    ----------
    model
        The network to change.
    batches
        Unlabelled calibration batches, as of :func:`sparsemend.compress`; held in memory.
    mode
        ``"exact"`` or ``"ema"``.
    momentum, updates, reset
        For ``ema``: PyTorch's momentum, how many batches are averaged (a shorter list is
        passed over again), and whether statistics start from 0 and 1. ASR
        (arXiv 2605.21426) runs 20 batches of 128 at momentum 0.1 without reset.
    progress
        Show a progress bar; default on a terminal.

    Raises
    ------
    SparsemendError
        If the mode is unknown, momentum or updates are out of range, the network has no BatchNorm
        with running statistics, the batches are empty, labelled or not finite, or what the
        network computes is not; with ``ema``, also if a batch gives a BatchNorm one value per
        channel.

    Warns
    -----
    SparsemendWarning
        With ``exact``, if a BatchNorm gets one or two values per channel from all batches
        together, which say nothing of a variance: it keeps its statistics.
    """
    if mode not in MODES:
        raise SparsemendError("unknown BatchNorm recalibration mode", mode, ", ".join(MODES))
    if not _is_share(momentum):
        raise SparsemendError("momentum is out of range", momentum, "a number above 0, at most 1")
    check_int("updates", updates)
    norms = running_norms(model)
    held = materialise(as_batches(model, batches))
    check_network(model)
    with progress_shown(progress), restored_on_error(model):
        if mode == "exact":
            _exact(model, held, norms)
        else:
            _ema(model, held, norms, momentum, updates, reset)
        check_network(model, "the recalibrated network")


def _is_share(value: object) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and 0 < value <= 1  # type: ignore[operator]


def _find_norms(model: nn.Module) -> dict[nn.Module, str]:
    return {
        module: name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def has_running_norms(model: nn.Module) -> bool:
    """Whether there is a BatchNorm to recalibrate."""
    return bool(_find_norms(model))


def running_norms(model: nn.Module) -> dict[nn.Module, str]:
    """Every BatchNorm that keeps running statistics → its module path.

    Raises
    ------
    SparsemendError
        If there is none.
    """
    norms = _find_norms(model)
    if not norms:
        raise SparsemendError(
            "the network has no BatchNorm with running statistics to recalibrate",
            fix="use a repair without batchnorm, such as 'variance'",
        )
    return norms


def _exact(model: nn.Module, batches: Sequence[Batch], norms: dict[nn.Module, str]) -> None:
    pooled: dict[nn.Module, ColumnMoments] = {}
    few: dict[str, int] = {}
    runs = [partial(run_replica, model, batch) for batch in batches]
    with (
        evaluation_mode(model),
        progress_bar("recalibrate BatchNorm", len(norms)) as advance,
        module_stops(norms),
        closing(lockstep(runs, norms.values())) as pauses,
    ):
        for pause in pauses:
            touched = set()
            for module, tensor in pause.calls.values():
                columns = _channels_last(tensor)
                if module not in pooled:
                    pooled[module] = ColumnMoments.empty((columns.shape[1],), columns.device)
                pooled[module].update(columns, dim=0)
                touched.add(module)
            for module in touched:
                few.pop(norms[module], None)
                if pooled[module].count < LEAST_VALUES:
                    few[norms[module]] = pooled[module].count
                else:
                    _set_statistics(norms[module], module, pooled[module])
            advance()
    if few:
        details = ", ".join(f"{name} ({count})" for name, count in few.items())
        warnings.warn(
            f"BatchNorm keeps its statistics where a channel has fewer than {LEAST_VALUES} values: "
            f"{details}; calibrate with more inputs",
            SparsemendWarning,
            stacklevel=4,
        )


def _set_statistics(name: str, module: nn.Module, moments: ColumnMoments) -> None:
    found = ((module.running_mean, moments.mean), (module.running_var, moments.variance))
    for buffer, value in found:
        buffer.copy_(value)  # type: ignore[operator]
        what = f"the statistics of BatchNorm {name!r} on these inputs"
        check_finite(what, buffer, fix=FIX_ACTIVATIONS)  # type: ignore[arg-type]


def _channels_last(x: Tensor) -> Tensor:
    """[N, C, ...] → [positions, C]."""
    return torch.movedim(x, 1, -1).reshape(-1, x.shape[1])


def _ema(
    model: nn.Module,
    batches: Sequence[Batch],
    norms: dict[nn.Module, str],
    momentum: float,
    updates: int,
    reset: bool,
) -> None:
    before = [norm.momentum for norm in norms]
    at_work = 0

    def look(norm: nn.Module, args: tuple[Any, ...]) -> None:
        x = args[0] if args else None
        if isinstance(x, Tensor) and x.dim() > 1 and x.numel() == x.shape[1]:
            raise SparsemendError(
                f"batches[{at_work}] gives BatchNorm {norms[norm]!r} a single value per channel, "
                "which has no variance",
                allowed="at least two",
                fix="leave that batch out, or use larger batches or mode 'exact'",
            )

    handles = []
    with evaluation_mode(model), progress_bar("recalibrate BatchNorm", updates) as advance:
        try:
            for norm in norms:
                handles.append(norm.register_forward_pre_hook(look))
                if reset:
                    norm.reset_running_stats()  # type: ignore[operator]
                norm.momentum = momentum  # type: ignore[assignment]
                norm.training = True
            for index in range(updates):
                at_work = index % len(batches)
                run = partial(call, model, batches[at_work])
                with traced(model, run):
                    run()
                advance()
        finally:
            for handle in handles:
                handle.remove()
            for norm, value in zip(norms, before, strict=True):
                norm.momentum = value


def _recalibration(name: str, mode: str, *, aliases: tuple[str, ...] = ()) -> Repair:
    def run(session: Session, network: nn.Module, terms: Terms) -> Outcome:
        masks = terms.support.masks
        assert masks is not None, "the formula has checked that"
        recalibrate(network, session.seen, mode)
        return Outcome(masks)

    def wanted(situation: Situation) -> bool:
        return has_running_norms(situation.session.model)

    exact = mode == "exact"
    return Repair(
        name,
        run,
        stage="statistics",
        restores="norms",
        # Recalibrated BatchNorm matches every channel's mean and variance.
        diagnosed_as="variance",
        cancels_scales=exact,
        ending=wanted if exact else None,
        finishes=exact,
        require=running_norms,
        aliases=aliases,
    )


BATCHNORM = _recalibration("batchnorm", "exact", aliases=("batchnorm-exact",))
BATCHNORM_EMA = _recalibration("batchnorm-ema", "ema")
