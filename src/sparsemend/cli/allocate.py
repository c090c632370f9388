"""sparsemend allocate: how many weights each layer keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sparsemend as sm
from sparsemend.allocation import RULES, needs_diagnosis
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, print_json

_DIAGNOSED = " and ".join(name for name, rule in RULES.items() if rule.needs == "diagnosis")


def allocate(
    model: opt.Model,
    sparsity: opt.Sparsity,
    rule: Annotated[str, typer.Option(help=f"One of {', '.join(sm.rule_names())}.")] = "global",
    diagnosis: Annotated[
        Path | None, typer.Option(help=f"From sparsemend diagnose, for {_DIAGNOSED}.")
    ] = None,
    weights: opt.Weights = None,
    data: Annotated[
        str | None, typer.Option(help="To diagnose with, where a rule needs it.")
    ] = None,
    repair: Annotated[str, typer.Option(help="Operator to diagnose with.")] = "variance",
    calibration_size: opt.CalibrationSize = 512,
    seed: opt.Seed = 0,
    num_classes: opt.Classes = None,
    width: opt.Width = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    batch_size: opt.BatchSize = 128,
    device: opt.Device = None,
    json: opt.Json = False,
) -> None:
    """Divide a global budget of kept weights over the layers.

    Example: sparsemend allocate --model digits --sparsity 0.9 --rule erk
    """
    with friendly_errors():
        found = None if diagnosis is None else sm.Diagnosis.load(diagnosis)
        if found is None and needs_diagnosis(rule) and data is not None:
            source = opt.load_source(
                model, weights, data, num_classes, width, mean, std, batch_size, device
            )
            network = source.model
            calibration = sm.calibrate(network, source.calibration(calibration_size, seed))
            found = sm.diagnose(network, calibration, repair)
        else:
            network = opt.load_model(model, weights, num_classes, width, device).model
        allocation = sm.allocate(network, sparsity, rule, diagnosis=found)
        if json:
            print_json(allocation.to_dict())
        else:
            print(allocation)
