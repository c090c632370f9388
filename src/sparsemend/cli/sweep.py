"""sparsemend sweep: a grid of configurations, and where recoverability ends."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli import _sweep_options as grid
from sparsemend.cli._output import friendly_errors, print_json
from sparsemend.cli._sweep_config import sweep_values
from sparsemend.cli._sweep_run import (
    fail_if_cells_did,
    load_networks,
    print_files,
    print_preview,
    summary,
    sweep_options,
)


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
        typer.Option(help=f"One of {', '.join(sm.rule_names())}, auto; repeat for several."),
    ] = None,
    mask: grid.Mask = None,
    repair: grid.Repair = None,
    sparsity: grid.Sparsity = None,
    seed: grid.Seeds = None,
    scope: grid.Scope = None,
    budget: grid.Budget = None,
    new_biases: grid.NewBiases = None,
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
    with friendly_errors(interrupted=grid.INTERRUPTED):
        opt.check_out(csv, ".csv", option="--csv")
        values, tables = sweep_values(flags.pop("config"), flags)
        options = sweep_options(values)
        models, images = load_networks(values, tables)
        result = sm.sweep(models, images, dry_run=dry_run, **options)
        if csv is not None and not dry_run:
            result.to_csv(csv)
        if json:
            print_json(summary(result))
        elif dry_run:
            print_preview(result)
        else:
            print(result)
            print_files(csv, values.get("store"))
        fail_if_cells_did(result)
