"""sparsemend diagnose: Relative Repairability of every layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._output import friendly_errors, print_json
from sparsemend.masks import mask_names
from sparsemend.operators import OPERATORS


def diagnose(
    model: opt.Model,
    data: opt.Data,
    weights: opt.Weights = None,
    repair: Annotated[str, typer.Option(help=f"One of {', '.join(OPERATORS)}.")] = "variance",
    mask: Annotated[str, typer.Option(help=f"One of {', '.join(mask_names())}.")] = "magnitude",
    weighting: Annotated[str, typer.Option(help="relative or energy.")] = "relative",
    calibration_size: opt.CalibrationSize = 512,
    seed: opt.Seed = 0,
    out: Annotated[Path | None, typer.Option(help="Write here, as .json or .npz.")] = None,
    num_classes: opt.Classes = None,
    width: opt.Width = None,
    mean: opt.Mean = None,
    std: opt.Std = None,
    batch_size: opt.BatchSize = 128,
    device: opt.Device = None,
    json: opt.Json = False,
) -> None:
    """Show, layer by layer, what pruning damages and how much of it a repair undoes.

    Example: sparsemend diagnose --model digits --data digits --out diagnosis.json
    """
    with friendly_errors():
        opt.check_out(out, ".json", ".npz")
        source = opt.load_source(
            model, weights, data, num_classes, width, mean, std, batch_size, device
        )
        calibration = sm.calibrate(source.model, source.calibration(calibration_size, seed))
        diagnosis = sm.diagnose(source.model, calibration, repair, mask=mask, weighting=weighting)
        if out is not None:
            diagnosis.save(out)
        if json:
            print_json(diagnosis.to_dict())
            return
        print(diagnosis)
        if out is not None:
            print(f"wrote {out}")
