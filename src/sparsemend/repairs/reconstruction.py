"""Reconstruct a pruned network layer by layer: the least-squares end of repair.

Every layer in execution order gets new values for its kept weights, with inputs from the
network repaired so far and targets from the dense one (Optimal Brain Compression,
arXiv 2208.11580, with the support fixed or chosen by operator splitting). A layer that feeds a
residual sum also corrects what the shortcut has wrong by then.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparsemend.errors import SparsemendWarning
from sparsemend.execution.batches import evaluation_mode, padding_of
from sparsemend.execution.lockstep import lockstep, module_stops
from sparsemend.execution.offload import lent, returned
from sparsemend.finite import FIX_ACTIVATIONS, check_finite
from sparsemend.layers import (
    Addend,
    Layer,
    Shortcut,
    Surroundings,
    arranged,
    batched,
    channel_shape,
    in_passing,
    layer_biases,
    layer_weight,
    present_bias,
    run_layer,
    set_weight,
    stored_weight,
    surroundings,
    unfold,
    weight_matrix,
)
from sparsemend.masks import MaskProblem, Masks
from sparsemend.masks.gradual import GRADUAL
from sparsemend.masks.magnitude import MAGNITUDE
from sparsemend.operators.affine import AFFINE
from sparsemend.progress import progress_bar
from sparsemend.repairs.channelwise import paired_runs
from sparsemend.repairs.fit import Choice, Fit, FitSettings, InputCovariance, LayerInputs, fit_layer
from sparsemend.repairs.fold import fold, takes_shift
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.matching import PairedCall, PairedOutputs, match_layer
from sparsemend.repairs.repair import Outcome, Support
from sparsemend.repairs.targets import Targets, norm_affine, path_scale
from sparsemend.session import Session

# Elements of a layer's second moments above which it is not refitted: 1 GiB in float32.
_MOST_MOMENTS = 1 << 28

# Run → how the layer is called there, and with what.
Calls = Mapping[int, tuple[Any, Tensor]]


def reconstruct(
    session: Session,
    network: nn.Module,
    support: Support,
    settings: FitSettings | None = None,
    importance: Mapping[str, Tensor] | None = None,
    *,
    new_biases: bool = False,
) -> Outcome:
    """Reconstruct every layer in place.

    Held in memory: of every batch in both networks what the networks need at the layer at
    work, that layer's inputs and targets, its d × d moments, and open shortcuts. Inputs and moments
    are those of the next layer too, as long as it is called with the same, as queries, keys and
    values are; their inverses take no more than 1 GiB.

    Parameters
    ----------
    session
        The dense network and the inputs to repair with.
    network
        The network to repair. With free masks its weights are still the dense ones.
    support
        Counts, and masks or the rule that chooses them jointly with the values.
    settings
        Constants.
    importance
        Layer name → weight of each channel's error where the support is free; by default that
        of the dense network's weights, see ``importance.py``.
    new_biases
        Whether a layer without a place for a shift gets a bias; else it is fitted without one.
    """
    if importance is None and support.masks is None:
        importance = channel_importance(session.model, session.layers)
    settings, importance = settings or FitSettings(), importance or {}
    walk = _Pass(session, network, support, settings, importance, new_biases)
    once = [layer for layer in session.layers if layer.calls == 1]
    with (
        evaluation_mode(session.model, network),
        progress_bar("reconstruct", len(session.layers)) as advance,
    ):
        # A layer cannot be repaired between its own calls: those that run several times come
        # first, fitted to all their calls together.
        for layer in session.layers:
            if layer.calls > 1:
                walk.repair(layer.name, _all_calls(session, network, layer))
                advance()
        runs, _ = paired_runs(session, network, once)
        modules = {
            model.get_submodule(path): path
            for model in (session.model, network)
            for path in walk.passed
        }
        order = in_passing(session.layers, walk.passed)
        with module_stops(modules), closing(lockstep(runs, order)) as pauses:
            for stop in pauses:
                walk.pass_by(stop.name, stop.calls)
                for name in walk.due(stop.name):
                    own = stop.calls if name == stop.name else walk.called_as(name, stop.calls)
                    walk.repair(name, own)
                    advance()
    walk.finish()
    walk.warn()
    return Outcome(walk.masks, tuple(walk.added), tuple(walk.unshifted), walk.held_back)


def _all_calls(session: Session, network: nn.Module, layer: Layer) -> Calls:
    """Every call of a layer that runs several times, those of the dense network first."""
    found: dict[int, list[tuple[Any, Tensor]]] = {}
    with closing(lockstep(*paired_runs(session, network, [layer]))) as pauses:
        for stop in pauses:
            for index, called in stop.calls.items():
                found.setdefault(index, []).append(called)
    batches = len(session.seen)
    pairs = [
        pair
        for index in range(batches)
        for pair in zip(found.get(index, ()), found.get(batches + index, ()), strict=False)
    ]
    dense, pruned = ([pair[side] for pair in pairs] for side in (0, 1))
    return dict(enumerate([*dense, *pruned]))


class _Pass:
    """State of one pass over the network."""

    def __init__(
        self,
        session: Session,
        network: nn.Module,
        support: Support,
        settings: FitSettings,
        importance: Mapping[str, Tensor],
        new_biases: bool,
    ) -> None:
        self._network, self._dense = network, session.model
        self._layers, self._support, self._batches = session.layers, support, len(session.seen)
        self._settings, self._importance = settings, importance
        self._new_biases = new_biases
        self._around = surroundings(session.layers)
        # Final layers whose outputs are class scores, of which there are two at least.
        self._scores = {
            layer.name
            for layer in session.layers
            if layer.name in self._around
            and self._around[layer.name].final
            and layer.groups == 1
            and layer.rows > 1
            and session.scores_classes(layer.rows)
        }
        addends = [a for s in self._around.values() if s.shortcut for a in s.shortcut.addends]
        # Inputs that a later sum will need again, by run: those of layers, and of other modules.
        self._sources = {addend.source for addend in addends}
        self.passed = sorted(self._sources - set(session.layers.names))
        self._held: dict[str, dict[int, Tensor]] = {}
        self._early = {
            addend.projection: self._around[addend.projection].ready_at
            for addend in addends
            if addend.projection
        }
        self._padding = [padding_of(batch) for batch in session.seen]
        self.masks: Masks = {}
        self.added: list[str] = []
        self.unshifted: list[str] = []
        # Whether any layer so far has lost weights.
        self._damaged = False
        self._last: InputCovariance | None = None
        self._ill: dict[str, str] = {}
        self._wide: list[str] = []
        self.held_back: dict[str, tuple[int, ...]] = {}

    def pass_by(self, name: str, calls: Calls) -> None:
        """Hold what a module is called with, where a later sum will need it."""
        if name in self.passed:
            self._held.setdefault(name, {}).update((run, x) for run, (_, x) in calls.items())

    def due(self, name: str) -> list[str]:
        """Layers to repair at a pause: projections of the same input first, then the layer."""
        if name in self.passed:
            return []
        early = [p for p, ready_at in self._early.items() if ready_at == name]
        return [layer for layer in (*early, name) if layer not in self.masks]

    def called_as(self, name: str, calls: Calls) -> Calls:
        """Calls of another layer with the same input, as if they were this layer's."""
        geometry = self._layers.geometry(name)
        return {index: (geometry, x) for index, (_, x) in calls.items()}

    def repair(self, name: str, calls: Calls) -> None:
        """Fit one layer to the calls that wait, and fold the result in.

        Calls of the dense network come first, those of the repaired one behind them.
        """
        layer = self._layers[name]
        around = self._around.get(name, Surroundings())
        half = self._halfway(layer, calls)
        order = [i for i in range(half) if i in calls and half + i in calls]
        if not order:
            return
        geometry = calls[half + order[0]][0]
        dense_inputs = [batched(*calls[i]) for i in order]
        inputs = [batched(*calls[half + i]) for i in order]
        if name in self._sources:
            both = zip((*order, *(half + i for i in order)), (*dense_inputs, *inputs), strict=True)
            self._held[name] = dict(both)
        self._damaged |= self._support.counts[name] < layer.size
        if not self._damaged:
            # There is nothing to make up for, and the ridge would only move its weights.
            self._keep_largest(layer)
            return
        routed = any(a.shape != b.shape for a, b in zip(dense_inputs, inputs, strict=True))
        inputs = [arranged(geometry, x) for x in inputs]
        # Routed to other inputs than in the dense network: the dense layer on the same ones.
        targeted = inputs if routed else dense_inputs
        outputs = [
            run_layer(self._dense, layer, geometry, arranged(geometry, x)).float() for x in targeted
        ]
        check_finite(f"the dense outputs of layer {name!r}", *outputs, fix=FIX_ACTIVATIONS)
        if layer.groups * layer.fan_in**2 > _MOST_MOMENTS:
            self._match(layer, geometry, inputs, outputs)
            return
        if layer.calls > 1 or routed:
            around = Surroundings(final=around.final and not routed)
        around, targets = self._targets(layer, around, outputs, order)
        fixed = self._support.masks
        choice = Choice(
            self._support.counts[name],
            None if fixed is None else lent(weight_matrix(fixed[name], layer)),
            self._support.rule or GRADUAL,
            self._importance.get(name),
        )
        shifted = takes_shift(self._network, layer, new_biases=self._new_biases)
        given = LayerInputs(self._network, layer, geometry, inputs, shifted)
        known, self._last = self._last, None  # freed before another takes its place
        if known is not None and (around.pooled or not known.serves(given)):
            known = None
        fit, covariance = fit_layer(
            given,
            targets,
            choice,
            self._settings,
            relu=around.relu,
            pooled=around.pooled,
            known=known,
        )
        self._last = None if layer.is_convolution else covariance
        if name in self._scores and not routed and outputs[0].dim() == 2:
            columns = [part[0] for x in inputs for part in unfold(geometry, x)]
            fit = _refit_logits(fit, covariance, columns, outputs, self._settings)
        self._finish(layer, fit, covariance)
        if around.shortcut is not None:
            self._release()

    def _match(
        self, layer: Layer, geometry: Any, inputs: Sequence[Tensor], outputs: Sequence[Tensor]
    ) -> None:
        """Keep the largest weights and fit a scale and a shift to every channel alone."""
        self._keep_largest(layer)
        paired = PairedOutputs(layer, outputs[0].device)
        paired.add(
            [
                PairedCall(
                    geometry, x, wanted, run_layer(self._network, layer, geometry, x).float()
                )
                for x, wanted in zip(inputs, outputs, strict=True)
            ]
        )
        added, held = match_layer(
            self._network, self._dense, layer, AFFINE, paired, self._new_biases
        )
        self.added += added
        if held:
            self.held_back[layer.name] = held
        self._wide.append(layer.name)

    def _keep_largest(self, layer: Layer) -> None:
        """The masks that were given, or those of the largest weights."""
        if self._support.masks is not None:
            self.masks[layer.name] = self._support.masks[layer.name]
            return
        matrix = weight_matrix(layer_weight(self._network, layer), layer)
        problem = MaskProblem(matrix, structure=layer.structure)
        mask = MAGNITUDE.mask(problem, self._support.counts[layer.name])
        set_weight(self._network, layer, matrix.masked_fill(~mask, 0))
        self.masks[layer.name] = stored_weight(mask, layer)

    def _targets(
        self, layer: Layer, around: Surroundings, outputs: list[Tensor], order: Sequence[int]
    ) -> tuple[Surroundings, Targets]:
        """The targets of a layer, and what of its surroundings they take account of."""
        device, shortcut = outputs[0].device, around.shortcut
        path = None if shortcut is None else shortcut.path
        affine = norm_affine(self._dense, layer, device, path)
        if affine is None:
            around, shortcut = Surroundings(final=around.final), None
        one = torch.ones((), device=device)
        slope, offset, usable = affine if affine is not None else (one, one * 0, one.bool())
        # In float32 throughout: half-precision targets would cost more than the pruning.
        joined = [slope * z + offset for z in outputs]
        if shortcut is None:
            return around, Targets(outputs, joined, None, slope, offset, usable)
        repaired = []
        for place, index in enumerate(order):
            right = self._rest(self._dense, shortcut, outputs[place], index)
            wrong = self._rest(self._network, shortcut, outputs[place], index)
            if right is None or wrong is None:
                alone = Surroundings(final=around.final, pooled=around.pooled)
                return self._targets(layer, alone, outputs, order)
            joined[place] = joined[place] + right
            repaired.append(wrong)
        return around, Targets(outputs, joined, repaired, slope, offset, usable)

    def _rest(
        self, model: nn.Module, shortcut: Shortcut, like: Tensor, index: int
    ) -> Tensor | None:
        """What is added to a layer's output of one batch, in the output's shape.

        None where the inputs have taken another way, so that it is not known.
        """
        run = index if model is self._dense else self._batches + index
        parts: list[Tensor] = []
        for addend in shortcut.addends:
            held = self._held.get(addend.source, {})
            if run not in held:
                return None
            part = self._addend(model, addend, held[run])
            if addend.projection is None:
                part = _as_output(part, like, shortcut.path.order, self._padding[index])
            if part.numel() != like.numel():
                return None
            parts.append(part.reshape(like.shape))
        total = sum(parts[1:], start=parts[0])
        # In the memory layout of the output, or they could only be added up out of order.
        return total if total.stride() == like.stride() else torch.empty_like(like).copy_(total)

    def _addend(self, model: nn.Module, addend: Addend, x: Tensor) -> Tensor:
        if addend.projection is None:
            return x.float()
        layer = self._layers[addend.projection]
        output = run_layer(model, layer, self._layers.geometry(layer.name), x)
        if layer.norm is not None:
            output = model.get_submodule(layer.norm).forward(output)
        result: Tensor = output.float()
        scale = path_scale(model, addend.path, result.device)
        return result if scale is None else result * scale.reshape(channel_shape(layer))

    def finish(self) -> None:
        """Keep the largest weights of layers that no input has reached in both networks."""
        for layer in self._layers:
            if layer.name in self.masks:
                continue
            self._keep_largest(layer)
            if self._support.masks is None:
                self._ill[layer.name] = "no calibration input reaches it"

    def _halfway(self, layer: Layer, calls: Calls) -> int:
        return len(calls) // 2 if layer.calls > 1 else self._batches

    def _finish(self, layer: Layer, fit: Fit, covariance: InputCovariance) -> None:
        # Outside the mask 0, never -0.
        set_weight(self._network, layer, fit.weight.masked_fill(~fit.mask, 0))
        if covariance.fixed is None:
            shift = fit.shift - present_bias(self._network, layer, fit.shift)
            self.added += fold(self._network, layer, None, shift)
        else:
            self.unshifted.append(layer.name)
        what = f"the weights and biases fitted to layer {layer.name!r}"
        fitted = (layer_weight(self._network, layer), *layer_biases(self._network, layer))
        check_finite(what, *fitted, fix=FIX_ACTIVATIONS)
        self.masks[layer.name] = returned(stored_weight(fit.mask, layer))
        held = (covariance.held_back.unsqueeze(1) & fit.mask).any(dim=2).flatten()
        if held.any():
            self.held_back[layer.name] = tuple(held.nonzero().flatten().tolist())
        constant = int(covariance.dead.sum())
        # Inputs that are constant because whole channels are gone tell nothing of the calibration.
        if constant and not layer.pattern.takes_channels:
            self._ill[layer.name] = f"{constant} of {covariance.dead.numel()} inputs are constant"
        elif covariance.count <= layer.fan_in:
            self._ill[layer.name] = f"{covariance.count} positions for fan-in {layer.fan_in}"

    def _release(self) -> None:
        """Forget inputs whose sums are done."""
        open_sources = {
            addend.source
            for name, s in self._around.items()
            if s.shortcut and name not in self.masks
            for addend in s.shortcut.addends
        }
        for name in [name for name in self._held if name not in open_sources]:
            del self._held[name]

    def warn(self) -> None:
        """One warning for all layers whose moments do not determine their weights, or are wide."""
        if self._wide:
            warnings.warn(
                f"layers too wide for the second moments of their inputs: {', '.join(self._wide)}; "
                "their largest weights are kept and every channel is scaled and shifted "
                "(repair affine) instead of reconstructed",
                SparsemendWarning,
                stacklevel=3,
            )
        if self._ill:
            details = "; ".join(f"{name} ({why})" for name, why in self._ill.items())
            warnings.warn(
                f"reconstruction leans on its ridge in ill-conditioned layers: {details}; more "
                "or more varied calibration inputs would help",
                SparsemendWarning,
                stacklevel=3,
            )


def _as_output(
    value: Tensor, like: Tensor, order: tuple[int, ...], padding: Tensor | None
) -> Tensor:
    """A value of a sum in the layout of a layer's outputs, without padding where they have none."""
    if order and value.dim() == len(order):
        value = value.permute([order.index(dim) for dim in range(len(order))])
    if padding is not None and value.numel() != like.numel() and value.shape[:2] == padding.shape:
        value = value[padding.to(value.device)]
    return value


def _refit_logits(
    fit: Fit,
    covariance: InputCovariance,
    inputs: Sequence[Tensor],
    logits: Sequence[Tensor],
    settings: FitSettings,
) -> Fit:
    """Fit the class probabilities rather than the logits, by Böhning's bound.

    The Hessian of the cross entropy in the logits is at most I / 2, so least squares to
    z + 2 (p_dense − p) never increases KL(dense ‖ repaired). A shift that is not free stays as
    it is, as in ``fit.py``.
    """
    x = torch.cat([part.reshape(-1, part.shape[-1]) for part in inputs]).to(fit.weight.dtype)
    wanted = F.softmax(torch.cat(list(logits)).to(x.dtype), dim=1)
    for _ in range(settings.logit_refits):
        z = x @ fit.weight[0].mT + fit.shift
        target = z + 2 * (wanted - F.softmax(z, dim=1))
        mean = target.mean(dim=0) if covariance.fixed is None else covariance.fixed.to(x.dtype)
        cross = (target - mean).mT @ x / len(x) / covariance.scale.to(x.dtype)
        target_moments = cross.unsqueeze(0).to(covariance.matrix.dtype)
        solved = covariance.solve(target_moments, fit.mask, settings.ridge)
        weight = solved.to(x.dtype) / covariance.scale.unsqueeze(1).to(x.dtype)
        shift = mean - (weight * covariance.mean.unsqueeze(1).to(x.dtype)).sum(dim=2).flatten()
        fit = Fit(weight, shift, fit.mask)
    return fit
