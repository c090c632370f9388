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
from sparsemend.finite import FIX_ACTIVATIONS, check_finite
from sparsemend.layers import (
    Layer,
    Surroundings,
    batched,
    stored_weight,
    surroundings,
    unfold,
    weight_matrix,
)
from sparsemend.masks import Masks
from sparsemend.masks.gradual import GRADUAL
from sparsemend.progress import progress_bar
from sparsemend.repairs.channelwise import paired_runs
from sparsemend.repairs.fit import Choice, Fit, FitSettings, InputCovariance, LayerInputs, fit_layer
from sparsemend.repairs.fold import fold
from sparsemend.repairs.importance import channel_importance
from sparsemend.repairs.repair import Outcome, Support
from sparsemend.repairs.targets import Targets, norm_affine
from sparsemend.session import Session
from sparsemend.solvers import solve_on_support


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
    runs, stops = paired_runs(session, network, session.layers)
    with (
        evaluation_mode(session.model, network),
        progress_bar("reconstruct", len(session.layers)) as advance,
        closing(lockstep(runs, stops)) as pauses,
    ):
        for pause in pauses:
            for name in walk.due(pause.name):
                walk.repair(name, pause.calls)
                advance()
    walk.warn()
    return Outcome(walk.masks, tuple(walk.added))


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
        self._network, self._dense, self._batches = network, session.model, len(session.seen)
        self._layers, self._support = session.layers, support
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

    def repair(self, name: str, calls: Mapping[int, tuple[nn.Module, Tensor]]) -> None:
        """Fit one layer to the calls that wait, and fold the result in."""
        layer = self._layers[name]
        around = self._around.get(name, Surroundings())
        order = [i for i in range(self._batches) if i in calls and self._batches + i in calls]
        dense_inputs = [batched(*calls[i]) for i in order]
        inputs = [batched(*calls[self._batches + i]) for i in order]
        if name in self._sources:
            self._held[name] = (dense_inputs, inputs)
        module: Any = self._network.get_submodule(name)
        reference: Any = self._dense.get_submodule(name)
        outputs = [reference.forward(x).float() for x in dense_inputs]
        check_finite(f"the dense outputs of layer {name!r}", *outputs, fix=FIX_ACTIVATIONS)
        affine = norm_affine(self._dense, layer, outputs[0].device)
        if affine is None or layer.calls > 1:
            around = Surroundings(final=around.final)
        targets = self._targets(around, outputs, affine)
        fixed = self._support.masks
        choice = Choice(
            self._support.counts[name],
            None if fixed is None else weight_matrix(fixed[name], layer),
            self._support.rule or GRADUAL,
            self._importance.get(name),
        )
        fit, covariance = fit_layer(
            LayerInputs(module, layer, inputs),
            targets,
            choice,
            self._settings,
            relu=around.relu,
            pooled=around.pooled,
        )
        # A single output has no class probabilities.
        if around.final and layer.groups == 1 and outputs[0].dim() == 2 and layer.rows > 1:
            columns = [part[0] for x in inputs for part in unfold(module, x)]
            fit = _refit_logits(fit, covariance, columns, outputs, self._settings)
        self._finish(layer, module, fit, covariance)
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
        output = model.get_submodule(projection).forward(x)
        if layer.norm is not None:
            output = model.get_submodule(layer.norm).forward(output)
        result: Tensor = output.float()
        return result

    def _finish(self, layer: Layer, module: Any, fit: Fit, covariance: InputCovariance) -> None:
        with torch.no_grad():
            kept = stored_weight(fit.mask, layer)
            # Outside the mask 0, never -0.
            module.weight.copy_(stored_weight(fit.weight, layer)).masked_fill_(~kept, 0)
        bias = None if module.bias is None else module.bias.detach().to(fit.shift)
        shift = fit.shift if bias is None else fit.shift - bias
        self.added += fold(self._network, layer, None, shift)
        what = f"the weights and biases fitted to layer {layer.name!r}"
        check_finite(what, *module.parameters(recurse=False), fix=FIX_ACTIVATIONS)
        self.masks[layer.name] = kept
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
