"""What other rules would have done with the same budget."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from torch import nn

from sparsemend.allocation import (
    RULES,
    Allocation,
    CostQuota,
    Rule,
    allocate_layers,
    check_rule,
)
from sparsemend.diagnosis import Diagnosis
from sparsemend.errors import SparsemendError, SparsemendWarning
from sparsemend.layers import LayerSet, discover, layer_weight
from sparsemend.targets import Target, quota_of

_NOT_COMPARED = "not in the allocation"


def rules_of_shapes() -> tuple[str, ...]:
    """Rules that divide any budget by shapes alone, so that a sparse network will do for them."""
    return tuple(
        name for name, rule in RULES.items() if rule.needs == "shapes" and not rule.may_refuse
    )


def other_rules(
    model: nn.Module,
    allocation: Allocation,
    rules: Sequence[str] | None = None,
    *,
    diagnosis: Diagnosis | None = None,
    layers: LayerSet | None = None,
    target: Target | None = None,
    multiplications: Mapping[str, int] | None = None,
) -> tuple[Allocation, ...]:
    """Allocations of the same budget over the same layers by other rules.

    The budget is the number of weights; where the allocation was made for a target that
    multiplications decide, their number.

    A rule that cannot divide this budget among these layers is left out: the comparison stands
    beside a result that does not depend on it.

    Parameters
    ----------
    model
        The dense network; a sparse one will do for :func:`rules_of_shapes`.
    allocation
        Whose layers and sparsity to take.
    rules
        Default: every rule of shapes and weights, and those that need a diagnosis or
        sensitivities where there are some.
    diagnosis
        Of the same layers.
    layers
        As they were found with inputs; default those that are found without.
    target, multiplications
        What the allocation was made for, and layer → multiplications of the dense network.

    Raises
    ------
    SparsemendError
        If one of ``rules`` is unknown.

    Warns
    -----
    SparsemendWarning
        Where a rule fails that should not, or the layers are not those of the model.
    """
    if rules is None:
        rules = [name for name, rule in RULES.items() if _is_served(rule, diagnosis)]
    for name in rules:
        check_rule(name)
    try:
        found = discover(model) if layers is None else layers
        compared = found.only(list(allocation), _NOT_COMPARED)
    except SparsemendError as error:
        _warn("no rule is compared", error)
        return ()
    weights = {layer.name: layer_weight(model, layer) for layer in compared}
    budget: float | CostQuota = allocation.sparsity
    if target is not None and target.kind.multiplies and multiplications:
        whole = quota_of(compared, multiplications, Fraction(1))
        budget = replace(whole, limit=whole.cost(tuple(allocation.values())))
    others = []
    for name in rules:
        fits = RULES[name].even or compared[0].pattern.density is None
        if name == allocation.rule or not fits:
            continue
        try:
            others.append(allocate_layers(compared, weights, budget, name, diagnosis=diagnosis))
        except Exception as error:  # a rule of the user's own may fail in any way
            if not (isinstance(error, SparsemendError) and RULES[name].may_refuse):
                _warn(f"rule {name!r} is not compared", error)
    return tuple(others)


def _is_served(rule: Rule, diagnosis: Diagnosis | None) -> bool:
    """Whether there is what a rule looks at."""
    if not rule.diagnosed:
        return rule.needs != "columns"
    if diagnosis is None:
        return False
    return rule.needs != "sensitivities" or diagnosis.sensitivities is not None


def _warn(what: str, error: Exception) -> None:
    text = str(error) if isinstance(error, SparsemendError) else f"{type(error).__name__}: {error}"
    warnings.warn(f"{what}: {text}", SparsemendWarning, stacklevel=3)
