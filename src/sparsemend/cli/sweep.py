"""sparsemend sweep: a grid of configurations, and where recoverability ends."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli import _sweep_options as grid
from sparsemend.cli._output import friendly_errors, print_json
from sparsemend.cli._sweep_config import Values, sweep_values


def sweep(
    config: Annotated[
        Path | None, typer.Option(help="TOML file of the same options; flags override it.")
    ] = None,
    model: grid.Model = None,
    weights: opt.Weights = None,
    data: grid.Data = None,
    name: grid.Name = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help=f"One of {', '.join(sm.rule_names())}; repeat for several."),
    ] = None,
    mask: grid.Mask = None,
    repair: grid.Repair = None,
    sparsity: grid.Sparsity = None,
    seed: grid.Seeds = None,
    scope: grid.Scope = None,
    calibration_size: grid.CalibrationSize = None,
    heldout_size: grid.HeldoutSize = None,
    limit: opt.Limit = None,
    store: grid.Store = None,
    csv: grid.Csv = None,
    dry_run: grid.DryRun = False,
    workers: grid.Workers = None,
    ray: grid.Ray = None,
    num_classes: opt.Classes = None,
    width: opt.Width = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    batch_size: grid.BatchSize = None,
    device: opt.Device = None,
    json: opt.Json = False,
) -> None:
    """Compress with every combination of rule, mask, repair, sparsity and seed.

    Finished cells are in the store: run the same command again to go on after an interruption.

    Example: sparsemend sweep --model digits --data digits --rule erk --rule rr
    --repair batchnorm --sparsity 0.80:0.98:0.02 --store sweep.sqlite
    """
    flags = dict(locals())
    with friendly_errors(interrupted="interrupted; finished cells are in the store"):
        opt.check_out(csv, ".csv", option="--csv")
        values, networks = sweep_values(flags.pop("config"), flags)
        result = run(values, networks, dry_run=dry_run)
        report(result, csv, json=json)


def run(values: Values, networks: Sequence[Values], *, dry_run: bool) -> sm.SweepResult:
    """Load the networks and sweep."""
    batch_size = values.get("batch_size", 128)
    sources = {}
    for network in networks:
        if network["name"] in sources:
            raise sm.SparsemendError(
                "two networks have the same name", network["name"], fix="name them in the file"
            )
        sources[network["name"]] = opt.load_source(
            network["model"],
            Path(network["weights"]) if "weights" in network else None,
            str(network["data"]),
            network.get("num_classes"),
            network.get("width"),
            network.get("mean"),
            network.get("std"),
            batch_size,
            values.get("device"),
        )
    if "sparsity" not in values:
        raise sm.SparsemendError("--sparsity is missing", fix="as in --sparsity 0.80:0.98:0.01")
    plural = {"rule": "rules", "mask": "masks", "repair": "repairs", "seed": "seeds"}
    options = {
        plural.get(key, key): value
        for key, value in values.items()
        if key not in ("sparsity", "device")
    }
    return sm.sweep(
        {name: source.model for name, source in sources.items()},
        {name: source.data for name, source in sources.items()},
        values["sparsity"],
        dry_run=dry_run,
        **options,
    )


def report(result: sm.SweepResult, csv: Path | None, *, json: bool) -> None:
    """Print what a sweep found; exit with 1 where cells failed."""
    if csv is not None:
        result.to_csv(csv)
    if json:
        print_json(summary(result))
    elif result.estimate is not None:
        print(
            f"{len(result.records)} cells are done, {len(result.pending)} to do: {result.estimate}"
        )
    else:
        print(result)
        if csv is not None:
            print(f"wrote {csv}")
    if result.failures:
        raise typer.Exit(1)


def summary(result: sm.SweepResult) -> dict[str, Any]:
    """Everything for machines."""
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
