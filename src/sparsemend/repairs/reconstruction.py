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
from sparsemend.execution.batches import evaluation_mode
from sparsemend.execution.lockstep import lockstep
from sparsemend.layers import (
    Layer,
    Surroundings,
    batched,
    layer_biases,
    layer_weight,
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
from sparsemend.progress import progress_bar
from sparsemend.repairs.channelwise import paired_runs
from sparsemend.repairs.fit import Choice, Fit, FitSettings, InputCovariance, LayerInputs, fit_layer
from sparsemend.repairs.fold import fold
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.repair import Outcome, Support
from sparsemend.repairs.targets import Targets, norm_affine
from sparsemend.session import Session
from sparsemend.solvers import solve_on_support

# Run → how the layer is called there, and with what.
Calls = Mapping[int, tuple[Any, Tensor]]


def reconstruct(
    session: Session,
    network: nn.Module,
    support: Support,
    settings: FitSettings | None = None,
    importance: Mapping[str, Tensor] | None = None,
) -> Outcome:
    """Reconstruct every layer in place.

    Held in memory: of every batch in both networks what the networks need at the layer at
    work, that layer's inputs and targets, its d × d moments, and open shortcuts.

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
    """
    if importance is None and support.masks is None:
        importance = channel_importance(session.model, session.layers)
    walk = _Pass(session, network, support, settings or FitSettings(), importance or {})
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
        with closing(lockstep(*paired_runs(session, network, once))) as pauses:
            for stop in pauses:
                for name in walk.due(stop.name):
                    own = stop.calls if name == stop.name else walk.called_as(name, stop.calls)
                    walk.repair(name, own)
                    advance()
    walk.finish()
    walk.warn()
    return Outcome(walk.masks, tuple(walk.added))


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
    ) -> None:
        self._network, self._dense = network, session.model
        self._layers, self._support, self._batches = session.layers, support, len(session.seen)
        self._settings, self._importance = settings, importance
        self._around = surroundings(session.layers)
        # Inputs that a later sum will need again: (dense, repaired) per batch.
        self._sources = {s.shortcut.source for s in self._around.values() if s.shortcut}
        self._held: dict[str, tuple[list[Tensor], list[Tensor]]] = {}
        self._early = {
            s.shortcut.projection: self._around[s.shortcut.projection].ready_at
            for s in self._around.values()
            if s.shortcut and s.shortcut.projection
        }
        self.masks: Masks = {}
        self.added: list[str] = []
        self._ill: dict[str, str] = {}

    def due(self, name: str) -> list[str]:
        """Layers to repair at a pause: projections of the same input first, then the layer."""
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
            self._held[name] = (dense_inputs, inputs)
        routed = any(a.shape != b.shape for a, b in zip(dense_inputs, inputs, strict=True))
        # Routed to other inputs than in the dense network: the dense layer on the same ones.
        targeted = inputs if routed else dense_inputs
        outputs = [run_layer(self._dense, layer, geometry, x).float() for x in targeted]
        affine = norm_affine(self._dense, layer, outputs[0].device)
        if affine is None or layer.calls > 1 or routed:
            around = Surroundings(final=around.final and not routed)
        targets = self._targets(around, outputs, affine)
        fixed = self._support.masks
        choice = Choice(
            self._support.counts[name],
            None if fixed is None else weight_matrix(fixed[name], layer),
            self._support.rule or GRADUAL,
            self._importance.get(name),
        )
        fit, covariance = fit_layer(
            LayerInputs(self._network, layer, geometry, inputs),
            targets,
            choice,
            self._settings,
            relu=around.relu,
            pooled=around.pooled,
        )
        # A single output has no class probabilities.
        if around.final and layer.groups == 1 and outputs[0].dim() == 2 and layer.rows > 1:
            columns = [part[0] for x in inputs for part in unfold(geometry, x)]
            fit = _refit_logits(fit, covariance, columns, outputs, self._settings)
        self._finish(layer, fit, covariance)
        if around.shortcut is not None:
            self._release()

    def _targets(
        self,
        around: Surroundings,
        outputs: list[Tensor],
        affine: tuple[Tensor, Tensor, Tensor] | None,
    ) -> Targets:
        one = torch.ones((), device=outputs[0].device)
        slope, offset, usable = affine if affine is not None else (one, one * 0, one.bool())
        # In float32 throughout: half-precision targets would cost more than the pruning.
        joined = [slope * z + offset for z in outputs]
        shortcut = None
        if around.shortcut is not None:
            dense_source, source = self._held[around.shortcut.source]
            projection = around.shortcut.projection
            shortcut = [self._shortcut(self._network, projection, x) for x in source]
            joined = [
                u + self._shortcut(self._dense, projection, x)
                for u, x in zip(joined, dense_source, strict=True)
            ]
        return Targets(outputs, joined, shortcut, slope, offset, usable)

    def _shortcut(self, model: nn.Module, projection: str | None, x: Tensor) -> Tensor:
        if projection is None:
            return x.float()
        layer = self._layers[projection]
        output = run_layer(model, layer, self._layers.geometry(projection), x)
        if layer.norm is not None:
            output = model.get_submodule(layer.norm).forward(output)
        result: Tensor = output.float()
        return result

    def finish(self) -> None:
        """Keep the largest weights of layers that no input has reached in both networks."""
        for layer in self._layers:
            if layer.name in self.masks:
                continue
            if self._support.masks is not None:
                self.masks[layer.name] = self._support.masks[layer.name]
                continue
            matrix = weight_matrix(layer_weight(self._network, layer), layer)
            mask = MAGNITUDE.mask(MaskProblem(matrix), self._support.counts[layer.name])
            set_weight(self._network, layer, matrix.masked_fill(~mask, 0))
            self.masks[layer.name] = stored_weight(mask, layer)
            self._ill[layer.name] = "no calibration input reaches it"

    def _halfway(self, layer: Layer, calls: Calls) -> int:
        return len(calls) // 2 if layer.calls > 1 else self._batches

    def _finish(self, layer: Layer, fit: Fit, covariance: InputCovariance) -> None:
        set_weight(self._network, layer, fit.weight)
        biases = layer_biases(self._network, layer)
        shift = fit.shift - biases[0].to(fit.shift) if biases else fit.shift
        self.added += fold(self._network, layer, None, shift)
        self.masks[layer.name] = stored_weight(fit.mask, layer)
        constant = int(covariance.dead.sum())
        if constant:
            self._ill[layer.name] = f"{constant} of {covariance.dead.numel()} inputs are constant"
        elif covariance.count <= layer.fan_in:
            self._ill[layer.name] = f"{covariance.count} positions for fan-in {layer.fan_in}"

    def _release(self) -> None:
        """Forget inputs whose sums are done."""
        open_sources = {
            s.shortcut.source
            for name, s in self._around.items()
            if s.shortcut and name not in self.masks
        }
        for name in [name for name in self._held if name not in open_sources]:
            del self._held[name]

    def warn(self) -> None:
        """One warning for all layers whose moments do not determine their weights."""
        if self._ill:
            details = "; ".join(f"{name} ({why})" for name, why in self._ill.items())
            warnings.warn(
                f"reconstruction leans on its ridge in ill-conditioned layers: {details}; more "
                "or more varied calibration inputs would help",
                SparsemendWarning,
                stacklevel=3,
            )


def _refit_logits(
    fit: Fit,
    covariance: InputCovariance,
    inputs: Sequence[Tensor],
    logits: Sequence[Tensor],
    settings: FitSettings,
) -> Fit:
    """Fit the class probabilities rather than the logits, by Böhning's bound.

    The Hessian of the cross entropy in the logits is at most I / 2, so least squares to
    z + 2 (p_dense − p) never increases KL(dense ‖ repaired).
    """
    x = torch.cat([part.reshape(-1, part.shape[-1]) for part in inputs]).to(fit.weight.dtype)
    wanted = F.softmax(torch.cat(list(logits)).to(x.dtype), dim=1)
    for _ in range(settings.logit_refits):
        z = x @ fit.weight[0].mT + fit.shift
        target = z + 2 * (wanted - F.softmax(z, dim=1))
        mean = target.mean(dim=0)
        cross = (target - mean).mT @ x / len(x) / covariance.scale.to(x.dtype)
        solved = solve_on_support(
            covariance.matrix,
            cross.unsqueeze(0).to(covariance.matrix.dtype),
            fit.mask,
            settings.ridge,
        )
        weight = solved.to(x.dtype) / covariance.scale.unsqueeze(1).to(x.dtype)
        shift = mean - (weight * covariance.mean.unsqueeze(1).to(x.dtype)).sum(dim=2).flatten()
        fit = Fit(weight, shift, fit.mask)
    return fit
