"""The public sweep: networks, inputs and values from the arguments, then the driver."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from sparsemend.boundary import public
from sparsemend.checks import check_int
from sparsemend.data import DataSet
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError
from sparsemend.evaluation import Criterion, LossFunction
from sparsemend.execution.batches import Batches
from sparsemend.execution.rows import as_batches, loaded
from sparsemend.layers import LayerFilter
from sparsemend.layers.refusals import refuse_unsupported
from sparsemend.progress import progress_shown
from sparsemend.recipe import says_itself
from sparsemend.recipe.defaults import (
    BATCH_SIZE,
    JUDGE,
    NEW_BIASES,
    PATTERN,
    REPAIR,
    SCOPE,
    SEED,
)
from sparsemend.sweeps import DrawnInputs, GivenInputs, Network, SweepResult
from sparsemend.sweeps.bench import Compute, in_process
from sparsemend.sweeps.driver import preview_sweep, run_sweep
from sparsemend.sweeps.grid import make_grid
from sparsemend.sweeps.ray import on_ray
from sparsemend.sweeps.workers import on_workers
from sparsemend.targets import read_targets


@public
def sweep(
    model: nn.Module | Mapping[str, nn.Module],
    data: DataSet | Mapping[str, DataSet] | Callable[[int], Batches] | Batches,
    sparsities: str | float | Iterable[str | float] | None = None,
    *,
    rules: str | Iterable[str] | None = None,
    masks: str | Iterable[str] | None = None,
    repairs: str | Iterable[str] = (REPAIR,),
    seeds: int | Iterable[int] = (SEED,),
    target_flops: float | str | Iterable[float | str] | None = None,
    target_latency: str | Iterable[str] | None = None,
    target_size: str | Iterable[str] | None = None,
    scope: str = SCOPE,
    budget: float | str | None = None,
    new_biases: bool = NEW_BIASES,
    distill: float | str | None = None,
    heldout: Callable[[int], Batches] | Batches | None = None,
    test: Iterable[Any] | None = None,
    diagnosis: Diagnosis | None = None,
    judge: str | LossFunction = JUDGE,
    output: str | int | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    pattern: str = PATTERN,
    calibration_size: int | None = None,
    heldout_size: int | None = None,
    batch_size: int = BATCH_SIZE,
    limit: int | None = None,
    store: str | os.PathLike[str] | None = None,
    workers: int = 1,
    ray: str | None = None,
    dry_run: bool = False,
    progress: bool | None = None,
) -> SweepResult:
    """Compress with every combination of rule, mask, repair, budget and calibration seed.

    Every combination is a cell. Finished cells go to the store at once, so a sweep that was
    killed goes on where it was, and no cell is computed twice. What cells share (calibration,
    diagnosis, dense accuracy) is computed once.

    Parameters
    ----------
    model
        A dense network, or several by name; unchanged.
    data
        Images, of which training images calibrate and are held out, and test images measure
        accuracy; or, for several networks, images by the same names. Or inputs of your own: a
        function from the seed to unlabelled batches, or the same batches for every seed.
    sparsities
        Fractions in [0, 1), or texts such as ``"0.80:0.98:0.01"`` (both ends included); to be left
        out with a pattern n:m, or where there are targets.
    rules, masks, repairs
        As in :func:`sparsemend.compress`; one or several of each. Without rules, ``"global"``
        (``"uniform"`` with a pattern n:m); without masks, each repair's default.
    seeds
        Of the calibration inputs.
    target_flops, target_latency, target_size
        Instead of sparsities, what the networks may cost, as in :func:`sparsemend.compress`; one or
        several values of one of the three. A cell records what was reached. Times are those of this
        machine, so that a store is of one; other workers make them longer.
    scope
        ``"sequential"`` or ``"one-shot"``.
    budget
        How long rule ``"auto"`` may search in each cell: a number of repairs (default 40), or a
        time such as ``"20min"``, which other machines will not reproduce.
    new_biases, distill
        As in :func:`sparsemend.compress`; ``distill`` is for the repairs that train.
    heldout, test
        With inputs of your own: unlabelled batches (or a function of the seed) that the repair
        must not see, by default the last fifth of the calibration batches; and labelled
        batches to measure accuracy on.
    diagnosis
        Of one network: what rules that read a diagnosis are given in every cell, for example
        of other inputs. By default each cell has the diagnosis of its own inputs, mask and
        repair, as :func:`sparsemend.compress` makes it. Rule ``auto`` has its own.
    judge, output
        How closeness is judged, and on which part of the output, as in
        :func:`sparsemend.agreement`; of a function the store keeps the name.
    include, exclude
        Which layers to prune, as in :func:`sparsemend.compress`.
    pattern
        Which weights can be kept, as in :func:`sparsemend.compress`.
    calibration_size, heldout_size, batch_size, limit
        With images: how many to calibrate with (default 512), to measure agreement on (default
        256), per batch, and to measure accuracy on (default all). Where there are fewer images,
        the defaults share what there is. A ``heldout_size`` of 0 holds out none, and agreement is
        measured on the calibration inputs.
    store
        SQLite file that keeps the cells; made where it is missing. None: nothing is kept. Cells
        that an earlier version computed are not computed again; records name the version.
    workers
        Processes of one thread each; 1 computes in this process, with its threads. In a script,
        more need the call below ``if __name__ == "__main__":``.
    ray
        Compute on a Ray cluster instead: its address, ``"auto"`` for one that runs here, else a
        new one, or ``"local"`` for a new one. Networks and data paths must exist on its machines.
    dry_run
        Compute and write nothing; the result says what is pending and about how long it takes.
    progress
        Show a progress bar; default on a terminal.

    Returns
    -------
    SweepResult
        Records of the cells, their transitions, and cells that failed.

    Raises
    ------
    SparsemendError
        For bad input, before any work. A cell that fails later, as at a sparsity that a network
        is too small for, is among the result's failures.

    Examples
    --------
    >>> result = sm.sweep(model, images, "0.90:0.96:0.03", rules=["erk", "rr"],
    ...                   repairs="batchnorm", store="sweep.sqlite")
    >>> len(result.records)
    6
    """
    chosen = LayerFilter.of(include, exclude, pattern)
    networks = make_networks(
        model,
        data,
        heldout=heldout,
        test=test,
        diagnosis=diagnosis,
        criterion=Criterion(judge, output),
        chosen=chosen,
        calibration_size=calibration_size,
        heldout_size=heldout_size,
        batch_size=batch_size,
        limit=limit,
    )
    targets = read_targets(
        sparsities,
        says_itself(None, pattern),
        target_flops=target_flops,
        target_latency=target_latency,
        target_size=target_size,
    )
    grid = make_grid(sparsities, rules, masks, repairs, seeds, chosen.pattern, targets)
    path = None if store is None else Path(store)
    compute = _computer(workers, ray)
    asked: dict[str, Any] = {"budget": budget, "new_biases": new_biases, "distill": distill}
    if dry_run:
        return preview_sweep(networks, grid, scope, path, **asked)
    with progress_shown(progress):
        return run_sweep(networks, grid, scope, path, compute, **asked)


def _computer(workers: int, ray: str | None) -> Compute:
    """Where cells are computed."""
    check_int("workers", workers)
    if ray is not None and workers != 1:
        raise SparsemendError(
            "workers and ray exclude each other", workers, "one of them", "Ray starts its own"
        )
    if ray is not None:
        return on_ray(ray)
    return on_workers(workers) if workers > 1 else in_process


def make_networks(
    model: nn.Module | Mapping[str, nn.Module],
    data: DataSet | Mapping[str, DataSet] | Callable[[int], Batches] | Batches,
    *,
    heldout: Callable[[int], Batches] | Batches | None = None,
    test: Iterable[Any] | None = None,
    diagnosis: Diagnosis | None = None,
    criterion: Criterion | None = None,
    chosen: LayerFilter | None = None,
    **sizes: Any,
) -> list[Network]:
    """The networks of a sweep with their inputs; parameters and errors as there."""
    more = (diagnosis, criterion or Criterion(), chosen or LayerFilter())
    for name, size in sizes.items():
        if size is not None:
            check_int(name, size, minimum=0 if name == "heldout_size" else 1)
    models = {type(model).__name__: model} if isinstance(model, nn.Module) else dict(model)
    if not models:
        raise SparsemendError("there is no network to sweep", allowed="at least one")
    for name, network in models.items():
        if not isinstance(name, str) or not isinstance(network, nn.Module):
            raise SparsemendError(
                "networks are given by name", {name: network}, "texts → torch.nn.Module"
            )
        refuse_unsupported(network)
    if diagnosis is not None and len(models) > 1:
        raise SparsemendError(
            "a diagnosis is of one network, but there are",
            ", ".join(models),
            "one network",
            "sweep each network with its own diagnosis",
        )
    images = dict.fromkeys(models, data) if isinstance(data, DataSet) else data
    if not isinstance(images, Mapping):
        unlabelled = [
            (_unlabelled(network, images), _unlabelled(network, heldout))
            for network in models.values()
        ]
        return [
            Network(name, network, GivenInputs(*given, loaded(test)), *more)
            for (name, network), given in zip(models.items(), unlabelled, strict=True)
        ]
    if images.keys() != models.keys():
        raise SparsemendError(
            "networks and data have different names",
            sorted(map(str, images)),
            ", ".join(models),
            "pass one data set, or one for each network",
        )
    for name, data_set in images.items():
        if not isinstance(data_set, DataSet):
            raise SparsemendError(
                f"data of network {name!r} are no data set", data_set, "a DataSet", "use data.load"
            )
    if heldout is not None or test is not None:
        raise SparsemendError(
            "heldout and test go with inputs of your own, but data are images",
            fix="leave them out: held-out and test images come from the data",
        )
    return [
        Network(name, network, DrawnInputs(images[name], **sizes), *more)
        for name, network in models.items()
    ]


Given = Callable[[int], Batches] | Batches | None


def _unlabelled(model: nn.Module, inputs: Given) -> Any:
    """Inputs of any form, or a function that gives them, as batches."""
    if inputs is None:
        return None
    return partial(_of_seed, model, inputs) if callable(inputs) else as_batches(model, inputs)


def _of_seed(model: nn.Module, inputs: Callable[[int], Batches], seed: int) -> Batches:
    return as_batches(model, inputs(seed))
