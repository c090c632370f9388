"""sparsemend allocate: how many weights each layer keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sparsemend as sm
from sparsemend.allocation import RULES, needs_columns, needs_diagnosis, needs_sensitivities
from sparsemend.checks import check_int
from sparsemend.cli._command import Given, command
from sparsemend.cli._options import DATA, LOADING, MODEL, OFFLOAD, WEIGHTS
from sparsemend.cli._output import print_json
from sparsemend.cli._source import load_model, load_source
from sparsemend.execution.offload import offloading
from sparsemend.layers import LayerFilter
from sparsemend.recipe import defaults, says_itself
from sparsemend.recipe.options import (
    CALIBRATION_SIZE,
    LAYERS,
    REPAIR,
    RULE,
    SEED,
    SPARSITY,
    STRUCTURE,
    TARGETS,
    Option,
)
from sparsemend.repairs import parse_repair
from sparsemend.sweeps.inputs import sizes_of
from sparsemend.targets import Subject, Target, kept_share, read_target


def _diagnosed() -> tuple[str, ...]:
    return (" and ".join(name for name, rule in RULES.items() if rule.diagnosed),)


@command(
    MODEL,
    SPARSITY,
    *TARGETS,
    RULE.but(help=f"One of {{choices}}. Default {defaults.PLAIN_RULE}."),
    Option("diagnosis", Path, "From sparsemend diagnose, for {choices}.", choices=_diagnosed),
    WEIGHTS,
    DATA.but(
        help="To calibrate with, where a rule needs it, to measure costs, and to find projections.",
        required=False,
    ),
    REPAIR.but(help="Operator to diagnose with.", default=defaults.DIAGNOSED_REPAIR),
    *STRUCTURE,
    CALIBRATION_SIZE,
    SEED,
    *LOADING,
    OFFLOAD,
)
def allocate(given: Given) -> None:
    """Divide a global budget of kept weights over the layers.

    Example: sparsemend allocate --model digits --sparsity 0.9 --rule erk
    """
    target = _check(given)
    chosen, layers, example = given.only(LAYERS), None, None
    found = None if given.diagnosis is None else sm.Diagnosis.load(given.diagnosis)
    diagnosing = found is None and needs_diagnosis(given.rule)
    calibrating, calibration = diagnosing or needs_columns(given.rule), None
    source = None if given.data is None else load_source(given)
    network = load_model(given).model if source is None else source.model
    with offloading(given.offload, network):
        if source is not None and (calibrating or any(chosen.values()) or target is not None):
            size, _ = sizes_of(source.data, given.calibration_size, 0)
            seen = source.calibration(size, given.seed)
            example = seen[0]
            if calibrating:
                calibration = sm.calibrate(network, seen, **chosen)
                layers = calibration.layers
            else:
                layers = sm.discover(network, seen[0], seen[1:], **chosen)
            if calibration is not None and diagnosing:
                measured = seen if needs_sensitivities(given.rule) else None
                found = sm.diagnose(
                    network, calibration, given.repair, pattern=given.pattern, batches=measured
                )
        options: dict[str, Any] = chosen if layers is None else {"layers": layers}
        if target is not None:
            options |= {"example": example, **given.only(TARGETS)}
        allocation = sm.allocate(
            network,
            given.sparsity,
            given.rule,
            diagnosis=found,
            calibration=calibration,
            pattern=given.pattern,
            **options,
        )
        covered = layers or sm.discover(network, **chosen)
        covered = LayerFilter.of(pattern=given.pattern).apply(covered)
        coverage = covered.only(list(allocation), "not in the diagnosis").coverage
        values = {**allocation.to_dict(), "coverage": coverage.to_dict()}
        lines = [str(allocation), str(coverage)]
        if target is not None:
            subject = Subject(network, covered, example)
            pruned = subject.pruned(tuple(allocation.values()))
            share = kept_share(subject, allocation, pruned)
            reached = target.reached(pruned, example, share)
            values["target"] = target.to_dict(reached)
            lines.append(target.told(reached))
    if given.json:
        print_json(values)
    else:
        print("\n".join(lines))


def _check(given: Given) -> Target | None:
    """Refuse bad options, also those that this allocation has no use for; the target if any."""
    parse_repair(given.repair)
    check_int("seed", given.seed, minimum=0)
    if given.calibration_size is not None:
        check_int("calibration_size", given.calibration_size)
    said_by = says_itself(given.rule, given.pattern)
    target = read_target(given.sparsity, said_by, **given.only(TARGETS))
    if target is not None and given.data is None:
        raise sm.SparsemendError(
            f"{target.kind.argument} needs inputs, to measure what the network costs",
            fix="say which with --data",
        )
    return target
