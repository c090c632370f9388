"""sparsemend ablate: what a rule's densities in some layers are worth."""

from __future__ import annotations

import dataclasses
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
from sparsemend.layers import CLASSES


def ablate(
    force: Annotated[
        str, typer.Option(help=f"Layers: {', '.join(CLASSES)}, or a pattern of names.")
    ],
    source: Annotated[str, typer.Option("--from", help="Rule whose densities these layers get.")],
    model: opt.Model,
    data: opt.Data,
    rule: Annotated[str, typer.Option(help="Rule of all other layers.")] = "erk",
    weights: opt.Weights = None,
    name: grid.Name = None,
    mask: grid.Mask = None,
    repair: grid.Repair = None,
    sparsity: grid.Sparsity = None,
    seed: grid.Seeds = None,
    scope: grid.Scope = None,
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
    """Force some layers to another rule's densities, and compare recovery.

    All other layers keep their proportions and make up for the budget. Cells are stored as those
    of a sweep.

    Example: sparsemend ablate --model digits --data digits --force projection --from lamp
    --repair batchnorm --sparsity 0.9 --sparsity 0.95
    """
    flags = {key: value for key, value in locals().items() if key != "rule"}
    with friendly_errors(interrupted=grid.INTERRUPTED):
        opt.check_out(csv, ".csv", option="--csv")
        values, tables = sweep_values(None, flags)
        options = sweep_options(values)
        models, images = load_networks(values, tables)
        result = sm.ablate(
            models, images, force=force, source=source, rule=rule, dry_run=dry_run, **options
        )
        if csv is not None and not dry_run:
            result.to_csv(csv)
        if json:
            compared = [dataclasses.asdict(found) for found in result.comparisons()]
            layers = {network: list(names) for network, names in result.layers.items()}
            print_json({**summary(result.sweep), "layers": layers, "comparisons": compared})
        elif dry_run:
            print_preview(result.sweep)
        else:
            print(result)
            print_files(csv, values.get("store"))
        fail_if_cells_did(result.sweep)
