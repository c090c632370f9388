"""The public ablation: a sweep over a rule, the rule with layers forced, and their source."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import nn

from sparsemend.allocation import ForcedRule, check_pattern
from sparsemend.boundary import public
from sparsemend.data import DataSet
from sparsemend.errors import SparsemendError, did_you_mean
from sparsemend.execution.batches import Batches
from sparsemend.layers import LayerFilter, select_layers
from sparsemend.patterns import parse_pattern
from sparsemend.recipe.defaults import BASE_RULE, PATTERN, SEED
from sparsemend.sweeps import AblationResult
from sparsemend.sweeps.grid import read_seeds
from sparsemend.sweeps.sweep import make_networks, sweep
from sparsemend.targets import KINDS

# Options of a sweep that say what the inputs are.
_INPUTS = ("heldout", "test", "calibration_size", "heldout_size", "batch_size", "limit")

# What it says itself, or is a sweep's alone: recoveries are compared at one sparsity.
_OWN = {"model", "data", "sparsities", "rules", *(kind.argument for kind in KINDS.values())}


@public
def ablate(
    model: nn.Module | Mapping[str, nn.Module],
    data: DataSet | Mapping[str, DataSet] | Callable[[int], Batches] | Batches,
    sparsities: str | float | Iterable[str | float] | None = None,
    *,
    force: str,
    source: str,
    rule: str = BASE_RULE,
    **options: Any,
) -> AblationResult:
    """Force some layers to another rule's densities and compare recovery (method, section 3).

    Three rules are swept: the base rule; the same with the forced layers at the other rule's
    exact counts and all others rescaled to the budget; and the other rule.

    Parameters
    ----------
    model, data, sparsities
        As in :func:`sparsemend.sweeps`.
    force
        Layers to force: ``"projection"`` (1×1 convolutions on shortcuts), ``"first"``,
        ``"last"``, ``"depthwise"``, or a pattern of layer names.
    source
        Rule whose densities they get.
    rule
        Base rule.
    options
        ``repairs``, ``masks``, ``seeds``, ``store``, ``workers`` and the others of
        :func:`sparsemend.sweeps`, except ``rules`` and targets.

    Returns
    -------
    AblationResult
        Recovery of the three, and what forcing gains.

    Raises
    ------
    SparsemendError
        As :func:`sparsemend.sweeps`, for an unknown option, and if no layer is meant by ``force``.
    """
    known = inspect.signature(sweep).parameters.keys() - _OWN
    for name in options.keys() - known:
        raise SparsemendError(
            "ablate has no such option", name, ", ".join(sorted(known)), did_you_mean(name, known)
        )
    forced = ForcedRule(rule, force, source)
    check_pattern(parse_pattern(options.get("pattern", PATTERN)), str(forced))
    inputs = {name: options[name] for name in _INPUTS if name in options}
    first = next(iter(read_seeds(options.get("seeds", SEED))), SEED)
    layers = {}
    chosen = LayerFilter.of(options.get("include", ()), options.get("exclude", ()))
    for network in make_networks(model, data, chosen=chosen, **inputs):
        seen, _ = network.inputs.draw(first)
        layers[network.name] = select_layers(network.session(seen).layers, force)
    result = sweep(model, data, sparsities, rules=[rule, str(forced), source], **options)
    return AblationResult(forced, layers, result)
