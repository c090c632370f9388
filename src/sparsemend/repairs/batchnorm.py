"""Recalibrate BatchNorm's running statistics; affine parameters stay untouched.

Mode ``exact``: running statistics become the pooled moments over all calibration inputs, each
normalisation in turn, with inputs from the already recalibrated ones before it. Pooling adds
the variance of batch means, which ``momentum=None`` would lose.
Mode ``ema``: as published repairs run it, exponential averages over a number of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.calibration.moments import ColumnMoments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, Batches, call, evaluation_mode, materialise
from sparsemend.execution.lockstep import lockstep, module_stops
from sparsemend.execution.replica import replica
from sparsemend.progress import progress_bar, progress_shown
from sparsemend.repairs.repair import Outcome, Repair, Situation, Terms
from sparsemend.session import Session

MODES = ("exact", "ema")
EMA_MOMENTUM = 0.1
EMA_UPDATES = 20


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

    Parameters
    ----------
    model
        The network to change.
    batches
        Unlabelled calibration batches, or one tensor [N, ...]; held in memory.
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
        If the mode is unknown, the network has no BatchNorm with running statistics, or the
        batches are empty, labelled or not finite.
    """
    if mode not in MODES:
        raise SparsemendError("unknown BatchNorm recalibration mode", mode, ", ".join(MODES))
    norms = running_norms(model)
    held = materialise(batches)
    with progress_shown(progress):
        if mode == "exact":
            _exact(model, held, norms)
        else:
            _ema(model, held, list(norms), momentum, updates, reset)


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
    runs = [lambda batch=batch: call(replica(model), batch) for batch in batches]
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
                _set_statistics(module, pooled[module])
            advance()


def _set_statistics(module: nn.Module, moments: ColumnMoments) -> None:
    module.running_mean.copy_(moments.mean)  # type: ignore[operator]
    module.running_var.copy_(moments.variance)  # type: ignore[operator]


def _channels_last(x: Tensor) -> Tensor:
    """[N, C, ...] → [positions, C]."""
    return torch.movedim(x, 1, -1).reshape(-1, x.shape[1])


def _ema(
    model: nn.Module,
    batches: Sequence[Batch],
    norms: list[nn.Module],
    momentum: float,
    updates: int,
    reset: bool,
) -> None:
    before = [norm.momentum for norm in norms]
    with evaluation_mode(model), progress_bar("recalibrate BatchNorm", updates) as advance:
        try:
            for norm in norms:
                if reset:
                    norm.reset_running_stats()  # type: ignore[operator]
                norm.momentum = momentum  # type: ignore[assignment]
                norm.training = True
            for index in range(updates):
                call(model, batches[index % len(batches)])
                advance()
        finally:
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
