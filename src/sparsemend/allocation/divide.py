"""From a rule by name to an allocation: the exact budget, and counts that are held to it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.problem import DamageCurves, Problem
from sparsemend.allocation.quota import Quota, WeightQuota, as_quota
from sparsemend.allocation.registry import RULES, get_rule
from sparsemend.calibration import LayerMoments
from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer
from sparsemend.patterns import Pattern


def allocate_layers(
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    budget: float | Quota,
    rule: str = "global",
    *,
    diagnosis: DamageCurves | None = None,
    moments: Mapping[str, LayerMoments] | None = None,
    **options: Any,
) -> Allocation:
    """Divide a budget over layers.

    Parameters
    ----------
    layers
        Prunable layers; they are taken in the order of ``Layer.order``.
    weights
        Weight tensor of each layer by name, for the rules that look at weights.
    budget
        Global sparsity S, a fraction in [0, 1); or what the layers may keep besides, of these
        layers in the same order.
    rule
        One of :func:`.rule_names`.
    diagnosis
        Damage curves of the same layers, for the rules that need them.
    moments
        Of each layer's inputs, by name, for the rules that need them.
    options
        Options of the rule, such as ``prior`` of ``rr-density``.

    Returns
    -------
    Allocation
        Integer counts, at least 1 per layer, that add up to round((1 − S) · N), or to as many
        weights as the cost allows. Where the layers' pattern does not allow every count, those
        near them of :func:`.hold_to_patterns`.

    Raises
    ------
    SparsemendError
        For an unknown rule or option, a sparsity out of range or infeasible, or input that
        the rule or the pattern refuses.
    """
    function = get_rule(rule).counts
    _check_options(rule, function, options)
    ordered = tuple(sorted(layers, key=lambda layer: layer.order))
    _check_layers(ordered)
    sizes = {layer.name: layer.size for layer in ordered}
    check_pattern(ordered[0].pattern, rule)
    quota, total = as_quota(budget, ordered), sum(sizes.values())

    def divide(keep: int) -> Sequence[int]:
        asked = isinstance(quota, WeightQuota)
        sparsity = quota.sparsity if asked else (total - keep) / total
        problem = Problem(ordered, weights, keep, sparsity, diagnosis, quota.prices, moments)
        given: object = function(problem, **options)
        counts = tuple(given) if isinstance(given, Iterable) else ()
        if len(counts) != len(ordered):
            raise SparsemendError(
                f"rule {rule!r} gives no count for each layer", given, f"{len(ordered)} counts"
            )
        if sum(counts) != keep:
            raise SparsemendError(
                f"counts of rule {rule!r} do not add up", sum(counts), f"exactly {keep}"
            )
        return counts

    return Allocation(dict(zip(sizes, quota.fill(divide), strict=True)), sizes, rule)


def check_pattern(pattern: Pattern, rule: str) -> None:
    """Refuse a rule for a pattern that says itself how dense every layer is.

    Raises
    ------
    SparsemendError
        Naming both.
    """
    even = [name for name, known in RULES.items() if known.even]
    if pattern.density is not None and rule not in even:
        raise SparsemendError(
            f"pattern {pattern.name!r} gives every layer the same density, so it cannot have rule",
            rule,
            ", ".join(map(repr, even)),
            "leave the rule out, or choose a pattern of blocks or channels",
        )


def _check_options(rule: str, function: Callable[..., object], options: Mapping[str, Any]) -> None:
    known = [
        name
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    ]
    for option in options:
        if option not in known:
            raise SparsemendError(
                f"unknown option of rule {rule!r}",
                option,
                ", ".join(map(repr, known)) or "no options",
            )


def _check_layers(layers: Sequence[Layer]) -> None:
    if not layers:
        raise SparsemendError("there is no prunable layer to allocate weights to")
    seen = set()
    for layer in layers:
        if layer.name in seen:
            raise SparsemendError("two layers have the same name", layer.name, "unique names")
        seen.add(layer.name)
        if layer.size == 0:
            raise SparsemendError(
                f"layer {layer.name!r} has no weights", layer.shape, "dimensions of at least 1"
            )
