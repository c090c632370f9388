"""Allocation: how many weights each layer keeps under one global budget.

A rule is a function from a :class:`Problem` (layers, weights, budget, diagnosis) to one kept
count per layer that adds up to ``problem.keep``; its options are keyword-only arguments. To
add one, write it in a file of its own and enter it in :data:`RULES`.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from sparsemend.allocation.allocation import Allocation
from sparsemend.allocation.budget import kept_total, require_feasible, round_to_budget, water_fill
from sparsemend.allocation.erk import erk
from sparsemend.allocation.forced import ForcedRule, force_layers, parse_forced
from sparsemend.allocation.global_magnitude import global_magnitude
from sparsemend.allocation.lamp import lamp
from sparsemend.allocation.problem import DamageCurves, Problem
from sparsemend.allocation.rr import rr
from sparsemend.allocation.rr_density import rr_density
from sparsemend.allocation.uniform import uniform
from sparsemend.allocation.uniform_plus import uniform_plus
from sparsemend.errors import SparsemendError
from sparsemend.layers.layer import Layer

__all__ = [
    "NEEDS_DIAGNOSIS",
    "RULES",
    "Allocation",
    "DamageCurves",
    "ForcedRule",
    "Problem",
    "Rule",
    "allocate_layers",
    "check_rule",
    "force_layers",
    "get_rule",
    "kept_total",
    "needs_diagnosis",
    "parse_forced",
    "round_to_budget",
    "rule_names",
    "water_fill",
]

Rule = Callable[..., Sequence[int]]

RULES: dict[str, Rule] = {
    "uniform": uniform,
    "uniform+": uniform_plus,
    "global": global_magnitude,
    "erk": erk,
    "lamp": lamp,
    "rr": rr,
    "rr-density": rr_density,
}

NEEDS_DIAGNOSIS = frozenset({"rr", "rr-density"})


def rule_names() -> tuple[str, ...]:
    """Names of the known rules."""
    return tuple(RULES)


def allocate_layers(
    layers: Sequence[Layer],
    weights: Mapping[str, Tensor],
    sparsity: float,
    rule: str = "global",
    *,
    diagnosis: DamageCurves | None = None,
    **options: Any,
) -> Allocation:
    """Divide the budget of a sparsity over layers.

    Parameters
    ----------
    layers
        Prunable layers; they are taken in the order of ``Layer.order``.
    weights
        Weight tensor of each layer by name, needed by ``global`` and ``lamp``.
    sparsity
        Global sparsity S, a fraction in [0, 1).
    rule
        One of :func:`rule_names`.
    diagnosis
        Damage curves of the same layers, needed by ``rr`` and ``rr-density``.
    options
        Options of the rule, such as ``prior`` of ``rr-density``.

    Returns
    -------
    Allocation
        Integer counts, at least 1 per layer, that add up to round((1 − S) · N).

    Raises
    ------
    SparsemendError
        For an unknown rule or option, a sparsity out of range or infeasible, or input that
        the rule refuses.
    """
    function = get_rule(rule)
    _check_options(rule, function, options)
    ordered = tuple(sorted(layers, key=lambda layer: layer.order))
    _check_layers(ordered)
    sizes = {layer.name: layer.size for layer in ordered}
    keep = kept_total(sparsity, sum(sizes.values()))
    require_feasible(list(sizes.values()), keep, [1] * len(sizes))
    counts = function(Problem(ordered, weights, keep, float(sparsity), diagnosis), **options)
    allocation = Allocation(dict(zip(sizes, counts, strict=True)), sizes, rule)
    if allocation.kept != keep:
        raise SparsemendError(
            f"counts of rule {rule!r} do not add up", allocation.kept, f"exactly {keep}"
        )
    return allocation


def get_rule(rule: str) -> Rule:
    """The rule of this name.

    Raises
    ------
    SparsemendError
        If there is none; names the known ones.
    """
    if rule in RULES:
        return RULES[rule]
    nearest = difflib.get_close_matches(str(rule).lower(), RULES, n=1)
    raise SparsemendError(
        "unknown allocation rule",
        rule,
        ", ".join(map(repr, RULES)),
        f"did you mean {nearest[0]!r}?" if nearest else "",
    )


def check_rule(rule: str) -> None:
    """Refuse an unknown rule, or a forced one (``"erk[projection=lamp]"``) of unknown parts."""
    for part in _parts(rule):
        get_rule(part)


def needs_diagnosis(rule: str) -> bool:
    """Whether a rule, or a part of a forced one, needs a diagnosis."""
    return any(part in NEEDS_DIAGNOSIS for part in _parts(rule))


def _parts(rule: str) -> tuple[str, ...]:
    forced = parse_forced(rule)
    return (rule,) if forced is None else (forced.base, forced.source)


def _check_options(rule: str, function: Rule, options: Mapping[str, Any]) -> None:
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
