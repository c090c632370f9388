"""The public allocation: a rule applied to a model."""

from __future__ import annotations

from typing import Any

from torch import nn

from sparsemend.allocation import Allocation, allocate_layers
from sparsemend.calibration import layer_weights
from sparsemend.diagnosis import Diagnosis
from sparsemend.layers import Layer, LayerSet, discover


def allocate(
    model: nn.Module,
    sparsity: float,
    rule: str = "global",
    *,
    diagnosis: Diagnosis | None = None,
    layers: LayerSet | None = None,
    **options: Any,
) -> Allocation:
    """Divide a global budget of kept weights over the layers of a model (method, section 3).

    Parameters
    ----------
    model
        The dense network; unchanged.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1).
    rule
        ``uniform``, ``uniform+``, ``global``, ``erk`` (arXiv 1911.11134), ``lamp``
        (arXiv 2010.07611), ``rr`` or ``rr-density`` (arXiv 2605.25508).
    diagnosis
        From :func:`sparsemend.diagnose`; needed by ``rr`` and ``rr-density``.
    layers
        Layers in execution order, such as ``calibration.layers``. Without them, those of the
        diagnosis, else every prunable layer in the order of registration.
    options
        Options of the rule, such as ``prior="erk"`` of ``rr-density``.

    Returns
    -------
    Allocation
        Layer name → kept count; the counts add up to round((1 − sparsity) · N) exactly.

    Raises
    ------
    SparsemendError
        For an unknown rule or option, a sparsity outside [0, 1), an infeasible budget, or a
        missing diagnosis.
    """
    found = discover(model) if layers is None else layers
    chosen: list[Layer] = list(found)
    if layers is None and diagnosis is not None:
        chosen = [found[name] for name in diagnosis.layers]
    weights = layer_weights(model, found)
    return allocate_layers(chosen, weights, sparsity, rule, diagnosis=diagnosis, **options)
