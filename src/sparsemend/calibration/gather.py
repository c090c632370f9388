"""One pass over unlabelled batches: the moments of every layer of the dense network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from sparsemend.boundary import public
from sparsemend.calibration.calibration import Calibration, LayerMoments, WideLayerMoments
from sparsemend.calibration.collector import MomentsCollector
from sparsemend.calibration.distributed import Collectives, succeed_together
from sparsemend.calibration.grid import DEFAULT_DENSITIES, check_densities, kept_count
from sparsemend.calibration.moments import ColumnMoments, PairedMoments
from sparsemend.calibration.precision import widened
from sparsemend.checks import check_int
from sparsemend.execution.batches import (
    Batch,
    Batches,
    batch_count,
    batch_size,
    call,
    check_unlabelled,
    evaluation_mode,
    iterate,
    materialise,
    no_batches,
    padding_of,
)
from sparsemend.execution.layout import fastest_layout
from sparsemend.execution.lockstep import lockstep, pause
from sparsemend.execution.offload import device_for, is_offloaded, lent, offloading, returned
from sparsemend.execution.replica import run_replica
from sparsemend.execution.rows import as_batches
from sparsemend.execution.threads import threaded_map
from sparsemend.finite import NotFiniteError, check_overflow, is_finite, traced
from sparsemend.layers import (
    Call,
    Layer,
    LayerCalls,
    LayerSet,
    count_positions,
    discover,
    kind_of,
    layer_weight,
    unfold,
    weight_matrix,
)
from sparsemend.progress import progress_bar, progress_shown
from sparsemend.solvers.ranking import entry_numbers

# Widest fan-in whose d × d second moment is kept: 4608² float32 values are 81 MiB.
MAX_FAN_IN = 4608


@public
def calibrate(
    model: nn.Module,
    batches: Batches,
    *,
    densities: Sequence[float] | None = None,
    max_fan_in: int = MAX_FAN_IN,
    positions_per_batch: int | None = None,
    distributed: bool = False,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    offload: str | torch.device | None = None,
    progress: bool | None = None,
) -> Calibration:
    """Accumulate the second moments of every layer's inputs in one pass (method, section 1).

    Held in memory: the moments (d × d per group of each layer, or its inputs where they are
    fewer) and one layer's inputs, laid out or unfolded in chunks of at most 64 MiB. A layer
    whose fan-in exceeds ``max_fan_in`` keeps paired output moments of its magnitude-pruned
    versions on the density grid instead: same diagnosis.

    Parameters
    ----------
    model
        The dense network; unchanged, run in evaluation mode.
    batches
        Unlabelled batches of any form that :func:`sparsemend.compress` takes. A generator will do.
    densities
        Grid for layers above ``max_fan_in``; default 24 densities from 0.01 to 1.
    max_fan_in
        Largest fan-in with a full d × d moment.
    positions_per_batch
        At most about so many output positions are used whenever a layer runs, those of evenly
        spaced inputs. Default None: all, which is exact. For the error that 16,384 makes,
        and what it saves, see docs/diagnosis-cost.md.
    distributed
        Every process of the default process group calibrates on its own batches, and all get the
        moments of all: see :meth:`Calibration.all_reduce`, also for the memory.
    include, exclude
        Which layers, by name, pattern or class, as in :func:`sparsemend.discover`.
    offload
        Compute on this device, as in :func:`sparsemend.compress`: then one layer after the other on
        all batches, which are held in memory. Moments are kept in main memory.
    progress
        Show a progress bar; default on a terminal.

    Raises
    ------
    SparsemendError
        If there are no batches, batches carry labels or NaN, weights or activations are not
        finite, or no layer is prunable. With ``distributed``, every process raises if one does.
    """
    check_int("max_fan_in", max_fan_in, minimum=0)
    if positions_per_batch is not None:
        check_int("positions_per_batch", positions_per_batch)

    def own() -> Calibration:
        with progress_shown(progress), offloading(offload, model):
            limits = Limits(check_densities(densities), max_fan_in, positions_per_batch)
            find = partial(discover, include=include, exclude=exclude)
            return gather_moments(model, as_batches(model, batches), find, limits)

    if not distributed:
        return own()
    collectives = Collectives()
    calibration = succeed_together(collectives, own)
    calibration.all_reduce()
    return calibration


def gather_moments(
    model: nn.Module,
    batches: Batches,
    layers: LayerSet | Callable[..., LayerSet] = discover,
    limits: Limits | None = None,
) -> Calibration:
    """Accumulate the moments of layers in one pass.

    Parameters
    ----------
    model
        The dense network.
    batches
        Unlabelled batches.
    layers
        Of the network, or a function that finds them as :func:`sparsemend.discover` does: on all
        batches, or on the first where they can be iterated only once.
    limits
        What is kept of each layer.
    """
    limits = limits or Limits()
    if is_offloaded():
        return _gather_in_turn(model, materialise(batches), layers, limits)
    iterator = iterate(batches)
    first = next(iterator, None)
    if first is None:
        raise no_batches("batches")
    check_unlabelled(first, "batches[0]")
    if not isinstance(layers, LayerSet):
        layers = layers(model, first, batches[1:] if isinstance(batches, list) else ())
    collectors = {
        layer.name: _Collector(layer, layer_weight(model, layer), limits) for layer in layers
    }

    def add(layer: Layer, called: Call) -> None:
        collectors[layer.name].add(called.geometry, called.x)

    inputs = 0
    calls = LayerCalls(model, layers, before=add)
    layout = fastest_layout(model, first)
    with (
        evaluation_mode(model),
        progress_bar("calibrate", batch_count(batches)) as advance,
    ):
        index, batch = 0, first
        while batch is not None:
            check_unlabelled(batch, f"batches[{index}]")
            calls.padding = padding_of(batch)
            laid_out = layout(batch)
            with traced(model, partial(call, model, laid_out)), calls:
                call(model, laid_out)
            inputs += batch_size(batch)
            index, batch = index + 1, next(iterator, None)
            advance()
    results = threaded_map(
        lambda layer: collectors[layer.name].result(), layers, lambda layer: layer.fan_in**2
    )
    return Calibration(layers, dict(zip(layers.names, results, strict=True)), inputs)


def _gather_in_turn(
    model: nn.Module,
    batches: list[Batch],
    layers: LayerSet | Callable[..., LayerSet],
    limits: Limits,
) -> Calibration:
    """The same one layer after the other, for a device that cannot hold the moments of all."""
    found: dict[str, LayerMoments] = {}
    chosen = layers if isinstance(layers, LayerSet) else layers(model, batches[0], batches[1:])
    layout = fastest_layout(model, batches[0])

    def stop(layer: Layer, called: Call) -> None:
        pause(layer.name, called.geometry, called.x)

    def run(batch: Batch) -> None:
        calls = LayerCalls(model, chosen, before=stop, padding=padding_of(batch))
        run_replica(model, layout(batch), within=calls)

    def moments(layer: Layer, calls: Iterable[tuple[Any, Tensor]]) -> LayerMoments:
        collector = _Collector(layer, layer_weight(model, layer), limits)
        for geometry, x in calls:
            collector.add(geometry, x)
        return returned(collector.result())

    with (
        evaluation_mode(model),
        progress_bar("calibrate", sum(layer.calls for layer in chosen)) as advance,
        closing(lockstep([partial(run, batch) for batch in batches], chosen.names)) as pauses,
    ):
        for at in pauses:
            new = moments(chosen[at.name], at.calls.values())
            if at.name in found:  # it runs several times
                found[at.name].merge(new)  # type: ignore[arg-type]
            else:
                found[at.name] = new
            advance()
    in_order = {x.name: found.get(x.name) or moments(x, ()) for x in chosen}
    return Calibration(chosen, in_order, sum(map(batch_size, batches)))


@dataclass(frozen=True)
class Limits:
    """What a calibration keeps of each layer.

    Attributes
    ----------
    densities
        Grid for layers above ``max_fan_in``; empty to keep of those layers their columns alone.
    max_fan_in
        Largest fan-in with a full d × d moment.
    positions_per_batch
        At most about so many output positions are used whenever a layer runs; None for all.
    """

    densities: tuple[float, ...] = DEFAULT_DENSITIES
    max_fan_in: int = MAX_FAN_IN
    positions_per_batch: int | None = None


class _Collector:
    """Adds a layer's inputs to its moments."""

    def __init__(self, layer: Layer, weight: Tensor, limits: Limits) -> None:
        self._layer = layer
        self._positions = limits.positions_per_batch
        device = device_for(weight)
        self._narrow: MomentsCollector | None = None
        if layer.fan_in <= limits.max_fan_in:
            self._narrow = MomentsCollector(layer, device, keep_few=True)
            return
        self._weight = lent(weight_matrix(weight, layer))
        if limits.densities:
            kept = [kept_count(density, layer) for density in limits.densities]
            ranks = layer.structure.rank(self._weight.float().abs())
            self._entries = entry_numbers(ranks, kept)
        self._wide = WideLayerMoments(
            ColumnMoments.empty((layer.groups, layer.fan_in), device),
            PairedMoments.empty(len(limits.densities), layer.rows, device),
            limits.densities,
        )

    def add(self, module: Any, x: Tensor) -> None:
        """Add an input; ``module`` says how the layer is called."""
        if not is_finite(x):
            raise NotFiniteError(f"the inputs of layer {self._layer.name!r} are NaN or infinite")
        if self._positions is not None:
            x = _evenly_spaced(module, x, self._positions)
        with torch.no_grad():
            if self._narrow is not None:
                self._narrow.add(module, x)
                return
            x = widened(module, x)
            for part in unfold(module, x):
                wide = part.dtype == torch.float64
                self._update_wide(self._wide, part if wide else part.float())

    def _update_wide(self, moments: WideLayerMoments, x: Tensor) -> None:
        moments.columns.update(x, dim=1)
        if not moments.densities:
            return
        weight = self._weight.to(x.dtype)
        dense = _positions_first(x @ weight.mT)
        pruned = []
        for number in range(len(moments.densities)):
            pruned.append(_positions_first(x @ (weight * (self._entries <= number)).mT))
        moments.outputs.update(dense, torch.stack(pruned))

    def result(self) -> LayerMoments:
        moments = self._wide if self._narrow is None else self._narrow.result()
        if moments.count:
            what = f"second moments of the inputs of layer {self._layer.name!r}"
            check_overflow(what, moments.column_square)
        return moments


def _positions_first(grouped: Tensor) -> Tensor:
    """[groups, positions, rows] → [positions, channels]."""
    return grouped.transpose(0, 1).reshape(grouped.shape[1], -1)


def _evenly_spaced(module: nn.Module, x: Tensor, positions: int) -> Tensor:
    """As many of a batch's inputs as give about so many output positions; at least one."""
    if not kind_of(module).is_batched(module, x):
        return x
    return x[:: max(1, -(-count_positions(module, x) // positions))]
