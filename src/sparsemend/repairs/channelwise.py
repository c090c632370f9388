"""Channelwise repair of all layers, in sequence or in one shot."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import lru_cache
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from sparsemend.calibration import OutputStatistics, PairedMoments
from sparsemend.errors import SparsemendError
from sparsemend.execution.batches import evaluation_mode, traced_call
from sparsemend.execution.lockstep import Pause, lockstep
from sparsemend.finite import FIX_ACTIVATIONS, check_finite
from sparsemend.layers import Layer, LayerSet, channel_last
from sparsemend.operators import Operator
from sparsemend.progress import progress_bar
from sparsemend.repairs.fold import fold
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
        added = repair_channelwise(session, network, layers, operator, terms.scope)
        return Outcome(masks, tuple(added))

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
    scope: str,
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
    with evaluation_mode(session.model, network):
        if scope == "one-shot":
            return _one_shot(session, network, layers, operator)
        if repeated:
            added += _one_shot(session, network, repeated, operator)
        once = [layer for layer in layers if layer.calls == 1]
        by_name = {layer.name: layer for layer in once}
        with (
            progress_bar("repair", len(once)) as advance,
            closing(lockstep(*paired_runs(session, network, once))) as pauses,
        ):
            for pause in pauses:
                layer = by_name[pause.name]
                moments = _accumulate(pause, layer, len(session.seen), None)
                added += _apply(network, layer, operator, moments.statistics())
                advance()
    return added


def _one_shot(
    session: Session, network: nn.Module, layers: Sequence[Layer], operator: Operator
) -> list[str]:
    moments: dict[str, PairedMoments] = {}
    by_name = {layer.name: layer for layer in layers}
    with (
        progress_bar("statistics", sum(layer.calls for layer in layers)) as advance,
        closing(lockstep(*paired_runs(session, network, layers))) as pauses,
    ):
        for pause in pauses:
            seen = moments.get(pause.name)
            layer = by_name[pause.name]
            moments[pause.name] = _accumulate(pause, layer, len(session.seen), seen)
            advance()
    added: list[str] = []
    for layer in layers:
        added += _apply(network, layer, operator, moments[layer.name].statistics())
    return added


def paired_runs(
    session: Session, network: nn.Module, layers: Sequence[Layer]
) -> tuple[list[Any], dict[nn.Module, str]]:
    """Runs 0 … B−1 of the dense network, B … 2B−1 of the pruned one, and their stops."""
    both = (session.model, network)
    runs = [lambda m=m, batch=batch: traced_call(m, batch) for m in both for batch in session.seen]
    stops: dict[nn.Module, str] = {}
    for model in both:
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
        outputs = channel_last(module, module.forward(inputs))
    except RuntimeError as error:
        if "out of memory" in str(error):
            raise
        raise SparsemendError(
            f"layer {layer.name!r} cannot run on what batches[{index}] gives it: {error}",
            fix="check the shape and type of the inputs",
        ) from error
    check_finite(f"the outputs of layer {layer.name!r}", outputs, fix=FIX_ACTIVATIONS)
    return outputs


def _apply(
    network: nn.Module, layer: Layer, operator: Operator, statistics: OutputStatistics
) -> list[str]:
    # Outputs without variance give no scale, and the weights kept there must stay as they are:
    # v / eps would let them explode on other inputs, 0 / eps would erase them.
    alive = statistics.pruned_variance[0] > 0
    scale = operator.scale(statistics)[0].where(alive, statistics.dense_mean.new_ones(()))
    shift = statistics.dense_mean - scale * statistics.pruned_mean[0]
    check_finite(f"scales and shifts that repair layer {layer.name!r}", scale, shift)
    return fold(network, layer, scale, shift)
