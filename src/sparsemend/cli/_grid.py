"""What the commands on grids share: their options, what they load and what they print."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from torch import nn

import sparsemend as sm
from sparsemend.cli._command import Given
from sparsemend.cli._config import sweep_values
from sparsemend.cli._options import DEVICE, LOADING, NETWORK, RAY, STORE, WORKERS
from sparsemend.cli._output import check_out, print_json
from sparsemend.cli._source import describe_sizes, load_source
from sparsemend.data import DataSet
from sparsemend.patterns import parse_pattern
from sparsemend.recipe.options import (
    BATCH_SIZE,
    BUDGET,
    CALIBRATION_SIZE,
    DISTILL,
    EXCLUDE,
    HELDOUT_SIZE,
    INCLUDE,
    INPUT,
    JUDGE,
    LIMIT,
    MASK,
    NEW_BIASES,
    OUTPUT,
    PATTERN,
    RECIPE,
    REPAIR,
    SCOPE,
    SEED,
    SPARSITY,
    TARGETS,
    Option,
)
from sparsemend.sweeps.inputs import sizes_of

INTERRUPTED = "interrupted; finished cells are in the store, if there is one"


def swept(*options: Option) -> tuple[Option, ...]:
    """Options as flags of a sweep."""
    return tuple(option.for_sweep() for option in options)


# What a sweep takes besides networks and rules.
GRID = (
    *swept(MASK, REPAIR, SPARSITY, SEED, SCOPE, BUDGET, JUDGE, OUTPUT, NEW_BIASES),
    *swept(INCLUDE, EXCLUDE, PATTERN, DISTILL),
    *swept(CALIBRATION_SIZE, HELDOUT_SIZE, LIMIT, STORE),
    Option("csv", Path, "Write one row per cell here."),
    Option("dry_run", bool, "Say what would run and about how long; run nothing.", False),
    *swept(WORKERS, RAY, *LOADING),
)
_KEYWORDS = {
    option.name: option.keyword for option in (*RECIPE, *TARGETS, *INPUT, STORE, WORKERS, RAY)
}


@dataclass(frozen=True)
class Asked:
    """What to sweep.

    Attributes
    ----------
    models, images
        Name → network, and name → its data.
    options
        Further keywords of :func:`sparsemend.sweep`; what was not said is not there.
    """

    models: dict[str, nn.Module]
    images: dict[str, DataSet]
    options: dict[str, Any]


def load_grid(flags: Mapping[str, Any], config: Path | None = None) -> Asked:
    """Read flags and file, then load the networks."""
    check_out(flags["csv"], ".csv", option="--csv")
    values, tables = sweep_values(config, flags)
    pattern = parse_pattern(values.get(PATTERN.name, PATTERN.default))
    budgets = {option.name for option in (SPARSITY, *TARGETS)}
    if not budgets & values.keys() and pattern.density is None:
        raise sm.SparsemendError("--sparsity is missing", fix="as in --sparsity 0.80:0.98:0.01")
    models: dict[str, nn.Module] = {}
    images: dict[str, DataSet] = {}
    for table in tables:
        name = table["name"]
        if name in models:
            raise sm.SparsemendError(
                "two networks have the same name", name, fix="give each table a name of its own"
            )
        source = load_source(Given.of((*NETWORK, BATCH_SIZE, DEVICE), values | table))
        models[name], images[name] = source.model, source.data
    # The device is where networks are loaded.
    given = {_KEYWORDS[name]: value for name, value in values.items() if name in _KEYWORDS}
    return Asked(models, images, {**given, "dry_run": flags["dry_run"]})


def finish(
    given: Given,
    asked: Asked,
    result: sm.SweepResult | sm.AblationResult,
    more: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Write and print what came out; exit with 1 where cells failed, though others are done.

    ``more`` is what a machine is told besides the sweep.
    """
    sweep = result.sweep if isinstance(result, sm.AblationResult) else result
    if given.csv is not None and not given.dry_run:
        result.to_csv(given.csv)
    if given.json:
        print_json({**_summary(sweep), **more()})
    elif given.dry_run:
        done, pending = len(sweep.records), sweep.pending
        print(f"{done} cells are done, {len(pending)} to do: {sweep.estimate}")
        print(_sizes(asked))
        for cell in pending:
            print(f"  {cell}")
    else:
        print(f"{result}\n{_sizes(asked)}")
        for file in (given.csv, asked.options.get("store")):
            if file is not None:
                print(f"wrote {file}")
    if sweep.failures:
        raise typer.Exit(1)


def _sizes(asked: Asked) -> str:
    """Which inputs serve for what, a line for each network."""
    lines = []
    for name, data in asked.images.items():
        wanted = (asked.options.get(size.name) for size in (CALIBRATION_SIZE, HELDOUT_SIZE))
        whose = f"{name}: " if len(asked.images) > 1 else ""
        lines.append(f"{whose}{describe_sizes(data, *sizes_of(data, *wanted))}")
    return "\n".join(lines)


def _summary(result: sm.SweepResult) -> dict[str, Any]:
    """A sweep for machines."""
    return {
        "cells": len(result.records),
        "computed": result.computed,
        "pending": [dataclasses.asdict(cell) for cell in result.pending],
        "estimate": None if result.estimate is None else dataclasses.asdict(result.estimate),
        "failures": [
            {**dataclasses.asdict(failure.cell), "error": failure.error}
            for failure in result.failures
        ],
        "transitions": [dataclasses.asdict(item) for item in result.transitions()],
        "leads": [dataclasses.asdict(item) for item in result.leads()],
    }
