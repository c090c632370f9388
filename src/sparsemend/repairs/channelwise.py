"""Channelwise repair of all layers, in sequence or in one shot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.calibration import PairedMoments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, evaluation_mode, padding_of
from sparsemend.execution.lockstep import Pause, lockstep, pause
from sparsemend.execution.replica import run_replica
from sparsemend.finite import FIX_ACTIVATIONS, check_finite
from sparsemend.layers import Call, Layer, LayerCalls, LayerSet, channel_last, run_layer
from sparsemend.operators import Operator
from sparsemend.progress import progress_bar
from sparsemend.repairs.fold import fold, takes_shift, unshiftable
from sparsemend.repairs.repair import Outcome, Repair, Terms
from sparsemend.session import Session


@lru_cache
def channelwise(operator: Operator) -> Repair:
    """The repair that matches every channel by an operator."""

    def run(session: Session, network: nn.Module, terms: Terms) -> Outcome:
        masks = terms.support.masks
        assert masks is not None, "the formula has checked that"
        # Pooled statistics cancel a positive scale and a shift in front of a BatchNorm up to its
        # eps (method, section 4): all that running the operator would add is that eps, weighing
        # less or more.
        cancelled = operator.positive and any(part.cancels_scales for part in terms.then)
        if not operator.matches_mean or cancelled:
            return Outcome(masks)
        recalibrated = any(part.restores == "norms" for part in terms.then)
        layers = covered_layers(network, session.layers, operator, recalibrated=recalibrated)
        unshifted = unshiftable(network, layers, new_biases=terms.new_biases)
        added = repair_channelwise(session, network, layers, operator, terms)
        return Outcome(masks, tuple(added), unshifted)

    return Repair(
        operator.name,
        run,
        restores="layers" if operator.matches_mean else "nothing",
        residual=lambda pruned: operator.residual(pruned.statistics),
        ending=(lambda _: True) if operator.ending else None,
    )


def covered_layers(
    network: nn.Module, layers: LayerSet, operator: Operator, *, recalibrated: bool
) -> list[Layer]:
    """The layers that an operator repairs.

    Recalibration changes the inputs of every layer behind the first BatchNorm, so a scale that
    was fitted before it no longer fits, unless the layer's own BatchNorm absorbs the
    difference. Before a recalibration, the operator therefore leaves the other layers alone.
    """
    modules = dict(network.named_modules())
    first = next((layer.name for layer in layers if layer.is_convolution), None)
    covered = [layer for layer in layers if operator.covers(layer, layer.name == first)]
    if not recalibrated:
        return covered
    return [x for x in covered if x.norm is not None and isinstance(modules[x.norm], _BatchNorm)]


def repair_channelwise(
    session: Session,
    network: nn.Module,
    layers: Sequence[Layer],
    operator: Operator,
    terms: Terms,
) -> list[str]:
    """Match the pruned network's layers to the dense network's, in place.

    Scope ``sequential``: each layer in execution order, with inputs from the network repaired
    so far. Scope ``one-shot``: statistics of both networks in one pass, then all layers
    together. A layer that runs several times in a forward pass cannot be repaired between its
    own calls; its statistics are pooled over them in one shot first.

    A layer that cannot be shifted (see ``fold.py``) gets the operator's scale for second moments
    about zero, E z² and E z'² instead of variances: ``variance`` matches E z², and the scale of
    ``affine`` is E z z' / E z'².

    Returns
    -------
    list of str
        Module paths that got a bias parameter.
    """
    repeated = [layer for layer in layers if layer.calls > 1]
    added: list[str] = []
    with evaluation_mode(session.model, network):
        if terms.scope == "one-shot":
            return _one_shot(session, network, layers, operator, terms)
        if repeated:
            added += _one_shot(session, network, repeated, operator, terms)
        once = [layer for layer in layers if layer.calls == 1]
        by_name = {layer.name: layer for layer in once}
        with (
            progress_bar("repair", len(once)) as advance,
            closing(lockstep(*paired_runs(session, network, once))) as pauses,
        ):
            for stop in pauses:
                layer = by_name[stop.name]
                moments = _accumulate(session, network, stop, layer, None)
                added += match_layer(network, layer, operator, moments, terms.new_biases)
                advance()
    return added


def _one_shot(
    session: Session,
    network: nn.Module,
    layers: Sequence[Layer],
    operator: Operator,
    terms: Terms,
) -> list[str]:
    moments: dict[str, PairedMoments | None] = {}
    by_name = {layer.name: layer for layer in layers}
    with (
        progress_bar("statistics", sum(layer.calls for layer in layers)) as advance,
        closing(lockstep(*paired_runs(session, network, layers))) as pauses,
    ):
        for stop in pauses:
            seen = moments.get(stop.name)
            layer = by_name[stop.name]
            moments[stop.name] = _accumulate(session, network, stop, layer, seen)
            advance()
    added: list[str] = []
    for layer in layers:
        added += match_layer(network, layer, operator, moments.get(layer.name), terms.new_biases)
    return added


def paired_runs(
    session: Session, network: nn.Module, layers: Sequence[Layer]
) -> tuple[list[Callable[[], object]], list[str]]:
    """Runs 0 … B−1 of the dense network, B … 2B−1 of the pruned one, and the order of their stops.

    Runs stop before every call of a layer; they carry its geometry.
    """

    def stop(layer: Layer, called: Call) -> None:
        pause(layer.name, called.geometry, called.x)

    def run(model: nn.Module, batch: Batch) -> None:
        calls = LayerCalls(model, layers, before=stop, padding=padding_of(batch))
        run_replica(model, batch, within=calls)

    both = (session.model, network)
    runs: list[Callable[[], object]] = [
        partial(run, model, batch) for model in both for batch in session.seen
    ]
    return runs, [layer.name for layer in layers]


def _accumulate(
    session: Session,
    network: nn.Module,
    stop: Pause,
    layer: Layer,
    moments: PairedMoments | None,
) -> PairedMoments | None:
    """Moments with the outputs of all runs that wait added; None as long as there are none."""
    batches = len(session.seen)
    for index in range(batches):
        if index not in stop.calls or batches + index not in stop.calls:
            continue
        z = _outputs(session.model, layer, *stop.calls[index], index)
        z_pruned = _outputs(network, layer, *stop.calls[batches + index], index)
        if z.shape != z_pruned.shape:  # routed to other inputs: the dense layer on the same ones
            z = _outputs(session.model, layer, *stop.calls[batches + index], index)
        if moments is None:
            moments = PairedMoments.empty(1, layer.rows, z.device)
        moments.update(z, z_pruned.unsqueeze(0))
    return moments


def _outputs(model: nn.Module, layer: Layer, geometry: Any, inputs: Tensor, index: int) -> Tensor:
    """The layer's pre-activations [positions, C]."""
    try:
        outputs = channel_last(geometry, run_layer(model, layer, geometry, inputs))
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise SparsemendError(
            f"layer {layer.name!r} cannot run on what batches[{index}] gives it: {error}",
            fix="check the shape and type of the inputs",
        ) from error
    check_finite(f"the outputs of layer {layer.name!r}", outputs, fix=FIX_ACTIVATIONS)
    return outputs


def match_layer(
    network: nn.Module,
    layer: Layer,
    operator: Operator,
    moments: PairedMoments | None,
    new_biases: bool,
) -> list[str]:
    """Match one layer by an operator, in place; module paths that got a bias parameter."""
    if moments is None:  # no input has reached it in both networks
        return []
    statistics = moments.statistics()
    shifted = takes_shift(network, layer, new_biases=new_biases)
    if not shifted:
        statistics = statistics.uncentred()
    # Outputs without variance give no scale, and the weights kept there must stay as they are:
    # v / eps would let them explode on other inputs, 0 / eps would erase them.
    alive = statistics.pruned_variance[0] > 0
    scale = operator.scale(statistics)[0].where(alive, statistics.dense_mean.new_ones(()))
    shift = statistics.dense_mean - scale * statistics.pruned_mean[0] if shifted else None
    what = f"scales and shifts that repair layer {layer.name!r}"
    check_finite(what, scale, *(() if shift is None else (shift,)))
    return fold(network, layer, scale, shift)
