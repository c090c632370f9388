"""Channelwise repair of all layers, in sequence or in one shot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

from torch import Tensor, nn

from sparsemend.calibration import OutputStatistics, PairedMoments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, call, evaluation_mode
from sparsemend.execution.lockstep import Pause, lockstep
from sparsemend.layers import Layer, channel_last
from sparsemend.operators import Operator
from sparsemend.progress import progress_bar
from sparsemend.repairs.fold import fold


def repair_channelwise(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: Sequence[Layer],
    operator: Operator,
    scope: str,
    progress: bool | None = None,
) -> list[str]:
    """Match the pruned network's layers to the dense network's, in place.

    Scope ``sequential``: each layer in execution order, with inputs from the network repaired
    so far. Scope ``one-shot``: statistics of both networks in one pass, then all layers
    together. A layer that runs several times in a forward pass cannot be repaired between its
    own calls; its statistics are pooled over them in one shot first.

    Returns
    -------
    list of str
        Module paths that got a bias parameter.
    """
    repeated = [layer for layer in layers if layer.calls > 1]
    added: list[str] = []
    with evaluation_mode(dense, pruned):
        if scope == "one-shot":
            return _one_shot(pruned, dense, batches, layers, operator, progress)
        if repeated:
            added += _one_shot(pruned, dense, batches, repeated, operator, progress)
        once = [layer for layer in layers if layer.calls == 1]
        by_name = {layer.name: layer for layer in once}
        with (
            progress_bar("repair", len(once), progress) as advance,
            closing(lockstep(*paired_runs(pruned, dense, batches, once))) as pauses,
        ):
            for pause in pauses:
                layer = by_name[pause.name]
                moments = _accumulate(pause, layer, len(batches), None)
                added += _apply(pruned, layer, operator, moments.statistics())
                advance()
    return added


def _one_shot(
    pruned: nn.Module,
    dense: nn.Module,
    batches: Sequence[Batch],
    layers: Sequence[Layer],
    operator: Operator,
    progress: bool | None,
) -> list[str]:
    moments: dict[str, PairedMoments] = {}
    by_name = {layer.name: layer for layer in layers}
    with (
        progress_bar("statistics", sum(layer.calls for layer in layers), progress) as advance,
        closing(lockstep(*paired_runs(pruned, dense, batches, layers))) as pauses,
    ):
        for pause in pauses:
            seen = moments.get(pause.name)
            moments[pause.name] = _accumulate(pause, by_name[pause.name], len(batches), seen)
            advance()
    added: list[str] = []
    for layer in layers:
        added += _apply(pruned, layer, operator, moments[layer.name].statistics())
    return added


def paired_runs(
    pruned: nn.Module, dense: nn.Module, batches: Sequence[Batch], layers: Sequence[Layer]
) -> tuple[list[Any], dict[nn.Module, str]]:
    """Runs 0 … B−1 of the dense network, B … 2B−1 of the pruned one, and their stops."""
    runs = [lambda m=m, batch=batch: call(m, batch) for m in (dense, pruned) for batch in batches]
    stops: dict[nn.Module, str] = {}
    for model in (dense, pruned):
        modules = dict(model.named_modules())
        for layer in layers:
            stops |= {modules[path]: layer.name for path in (layer.name, *layer.aliases)}
    return runs, stops


def _accumulate(
    pause: Pause, layer: Layer, batches: int, moments: PairedMoments | None
) -> PairedMoments:
    for index in range(batches):
        if index not in pause.calls or batches + index not in pause.calls:
            continue
        z = _outputs(*pause.calls[index], layer, index)
        z_pruned = _outputs(*pause.calls[batches + index], layer, index)
        if moments is None:
            moments = PairedMoments.empty(1, layer.rows, z.device)
        moments.update(z, z_pruned.unsqueeze(0))
    assert moments is not None, "dense and pruned networks stop at the same layers"
    return moments


def _outputs(module: nn.Module, inputs: Tensor, layer: Layer, index: int) -> Tensor:
    """The layer's pre-activations [positions, C]."""
    try:
        # forward, not __call__: the hooks must not see these runs.
        return channel_last(module, module.forward(inputs))
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise SparsemendError(
            f"layer {layer.name!r} cannot run on what batches[{index}] gives it: {error}",
            fix="check the shape and type of the inputs",
        ) from error


def _apply(
    pruned: nn.Module, layer: Layer, operator: Operator, statistics: OutputStatistics
) -> list[str]:
    # Outputs without variance give no scale, and the weights kept there must stay as they are:
    # v / eps would let them explode on other inputs, 0 / eps would erase them.
    alive = statistics.pruned_variance[0] > 0
    scale = operator.scale(statistics)[0].where(alive, statistics.dense_mean.new_ones(()))
    shift = statistics.dense_mean - scale * statistics.pruned_mean[0]
    return fold(pruned, layer, scale, shift)
