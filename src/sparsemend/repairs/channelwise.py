"""Channelwise repair of all layers, in sequence or in one shot."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import Batch, evaluation_mode, padding_of
from sparsemend.execution.lockstep import Pause, lockstep, pause
from sparsemend.execution.replica import run_replica
from sparsemend.finite import FIX_ACTIVATIONS, check_finite
from sparsemend.layers import Call, Layer, LayerCalls, LayerSet, run_layer
from sparsemend.operators import Operator
from sparsemend.progress import progress_bar
from sparsemend.repairs.fold import unshiftable
from sparsemend.repairs.matching import PairedCall, PairedOutputs, match_layer
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
        added, held = repair_channelwise(session, network, layers, operator, terms)
        return Outcome(masks, tuple(added), unshifted, held)

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
) -> tuple[list[str], dict[str, tuple[int, ...]]]:
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
    tuple of list of str and dict
        Module paths that got a bias parameter, and layer name → channels whose gains were held
        back because the inputs do not support them.
    """
    repeated = [layer for layer in layers if layer.calls > 1]
    added: list[str] = []
    held: dict[str, tuple[int, ...]] = {}

    def match(layer: Layer, paired: PairedOutputs | None) -> None:
        new, back = match_layer(network, session.model, layer, operator, paired, terms.new_biases)
        added.extend(new)
        if back:
            held[layer.name] = back

    with evaluation_mode(session.model, network):
        if terms.scope == "one-shot":
            _one_shot(session, network, layers, match)
            return added, held
        if repeated:
            _one_shot(session, network, repeated, match)
        once = [layer for layer in layers if layer.calls == 1]
        by_name = {layer.name: layer for layer in once}
        with (
            progress_bar("repair", len(once)) as advance,
            closing(lockstep(*paired_runs(session, network, once))) as pauses,
        ):
            for stop in pauses:
                layer = by_name[stop.name]
                match(layer, _accumulate(session, network, stop, layer, None))
                advance()
    return added, held


def _one_shot(
    session: Session,
    network: nn.Module,
    layers: Sequence[Layer],
    match: Callable[[Layer, PairedOutputs | None], None],
) -> None:
    found: dict[str, PairedOutputs | None] = {}
    by_name = {layer.name: layer for layer in layers}
    with (
        progress_bar("statistics", sum(layer.calls for layer in layers)) as advance,
        closing(lockstep(*paired_runs(session, network, layers))) as pauses,
    ):
        for stop in pauses:
            layer, seen = by_name[stop.name], found.get(stop.name)
            found[stop.name] = _accumulate(session, network, stop, layer, seen)
            advance()
    for layer in layers:
        match(layer, found.get(layer.name))


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
        run_replica(model, session.layout(batch), within=calls)

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
    paired: PairedOutputs | None,
) -> PairedOutputs | None:
    """What was gathered, with the outputs of all runs that wait added; None where there is none."""
    batches = len(session.seen)
    calls = []
    for index in range(batches):
        if index not in stop.calls or batches + index not in stop.calls:
            continue
        geometry, x = stop.calls[batches + index]
        z = _outputs(session.model, layer, *stop.calls[index], index)
        z_pruned = _outputs(network, layer, geometry, x, index)
        if z.shape != z_pruned.shape:  # routed to other inputs: the dense layer on the same ones
            z = _outputs(session.model, layer, geometry, x, index)
        calls.append(PairedCall(geometry, x, z, z_pruned))
    if calls:
        paired = paired or PairedOutputs(layer, calls[0].present.device)
        paired.add(calls)
    return paired


def _outputs(model: nn.Module, layer: Layer, geometry: Any, inputs: Tensor, index: int) -> Tensor:
    """The layer's pre-activations."""
    try:
        outputs = run_layer(model, layer, geometry, inputs)
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise SparsemendError(
            f"layer {layer.name!r} cannot run on what batches[{index}] gives it: {error}",
            fix="check the shape and type of the inputs",
        ) from error
    check_finite(f"the outputs of layer {layer.name!r}", outputs, fix=FIX_ACTIVATIONS)
    return outputs
