"""The public allocation: a rule applied to a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

from sparsemend.allocation import Allocation, Quota, WeightQuota, rule_names
from sparsemend.boundary import public
from sparsemend.calibration import Calibration
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.execution.batches import Batch
from sparsemend.layers import LayerFilter, LayerSet, discover
from sparsemend.patterns import FREE
from sparsemend.recipe import SEARCHES, says_itself
from sparsemend.recipe.defaults import PATTERN, plain_rule
from sparsemend.targets import read_target
from sparsemend.verbs.division import divide


@public
def allocate(
    model: nn.Module,
    sparsity: float | None = None,
    rule: str | None = None,
    *,
    target_flops: float | None = None,
    target_latency: str | None = None,
    target_size: str | None = None,
    example: Batch | None = None,
    diagnosis: Diagnosis | None = None,
    calibration: Calibration | None = None,
    layers: LayerSet | None = None,
    include: str | Iterable[str] = (),
    exclude: str | Iterable[str] = (),
    pattern: str = PATTERN,
    **options: Any,
) -> Allocation:
    """Divide a global budget over the layers of a model (method, section 3).

    Parameters
    ----------
    model
        The dense network; unchanged.
    sparsity
        Fraction of all prunable weights to remove, in [0, 1); or instead one of the targets, or
        neither where the pattern has a sparsity.
    rule
        ``uniform``, ``uniform+``, ``global``, ``erk`` (arXiv 1911.11134), ``lamp``
        (arXiv 2010.07611), ``owl`` (arXiv 2310.05175), ``rr``, ``rr-density`` (arXiv 2605.25508),
        or ``sensitivity`` (``rr`` weighed by what the output suffers from each layer); default
        ``global``, or ``uniform`` where the pattern has a sparsity. Or one of these with some
        layers forced to the densities of another and the rest rescaled to the budget, as in
        ``"erk[projection=lamp]"``: the layers are ``projection``
        (1×1 convolutions on shortcuts; needs ``layers`` that were discovered with inputs),
        ``first``, ``last``, ``depthwise`` or a pattern of names.
    target_flops, target_latency, target_size
        What the network may cost, as in :func:`sparsemend.compress`; need an ``example``.
    example
        A batch of inputs, to measure costs with.
    diagnosis
        From :func:`sparsemend.diagnose`; needed by ``rr`` and ``rr-density``, and by
        ``sensitivity``, for which it has to be made with ``batches``.
    calibration
        From :func:`sparsemend.calibrate`; needed by ``owl``.
    layers
        Layers in execution order, such as ``calibration.layers``, which are taken where there is
        a calibration. Else those that the example runs, or those of the diagnosis in its order,
        or every prunable layer in the order of registration.
    include, exclude
        Which of them to prune, by name, pattern or class, as in :func:`sparsemend.discover`; the
        others stay as they are and do not count in the sparsity.
    pattern
        Which weights can be kept, as in :func:`sparsemend.compress`; ``layers`` may have one
        already.
    options
        Options of the rule (of the first of two): ``prior="erk"`` of ``rr-density``,
        ``floor=0.3`` of ``sensitivity``, ``outlier=5`` and ``spread=0.08`` of ``owl``.

    Returns
    -------
    Allocation
        Layer name → kept count; the counts add up to round((1 − sparsity) · N) exactly, or to as
        many weights as the target allows. Where the pattern does not allow every count, each is
        the next one above or below the rule's that it allows, and the total as near as it can be.

    Raises
    ------
    SparsemendError
        For an unknown rule, pattern or option, what does not go with the pattern, a sparsity
        outside [0, 1), not exactly one budget, one that
        is infeasible (with the smallest that is not), or a missing diagnosis or calibration or
        one of another network.

    Warns
    -----
    SparsemendWarning
        If the diagnosis lacks layers of the model: they get no count and stay dense.
    """
    if rule in SEARCHES:
        raise SparsemendError(
            f"rule {rule!r} is a search that repairs, not a rule of weights alone",
            allowed=", ".join(rule_names()),
            fix=f"use compress(..., rule={rule!r}); its result has the allocation",
        )
    chosen = LayerFilter.of(include, exclude, pattern)
    own = FREE if layers is None else layers[0].pattern
    target = read_target(
        sparsity,
        says_itself(rule, (own if chosen.pattern == FREE else chosen.pattern).name),
        target_flops=target_flops,
        target_latency=target_latency,
        target_size=target_size,
    )
    if target is not None and example is None:
        raise SparsemendError(
            f"{target.kind.argument} needs an example, to measure what the network costs",
            fix="pass example=, a batch of inputs",
        )
    if layers is None and calibration is not None:
        layers = calibration.layers
    found = discover(model, example) if layers is None else layers
    if layers is None and diagnosis is not None:
        found = _diagnosed(found, diagnosis)
    found = chosen.apply(found)
    rule = rule or plain_rule(found[0].pattern)
    if target is None:
        sparsity = found[0].pattern.sparsity(sparsity)
        assert sparsity is not None, "read_target has seen to it"
        quota: Quota = WeightQuota.of(found, sparsity)
    else:
        quota = target.quota(model, found, example)
    return divide(model, found, quota, rule, diagnosis, calibration, **options)


def _diagnosed(found: LayerSet, diagnosis: Diagnosis) -> LayerSet:
    """The model's layers in the execution order of the diagnosis."""
    unknown = [name for name in diagnosis.layers if name not in found.names]
    if unknown:
        raise SparsemendError(
            "the diagnosis names layers that the model does not have",
            unknown[:5],
            ", ".join(found.names),
            "diagnose the network that is to be pruned",
        )
    missing = [name for name in found.names if name not in diagnosis.layers]
    if missing and diagnosis.pattern == PATTERN:  # of others, they could not have the pattern
        warnings.warn(
            f"not in the diagnosis, so they stay dense and do not count: {', '.join(missing)}",
            SparsemendWarning,
            stacklevel=4,
        )
    return found.only(diagnosis.layers, "not in the diagnosis")
