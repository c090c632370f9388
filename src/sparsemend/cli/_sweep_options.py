"""Options that the commands on grids share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsemend.masks import mask_names
from sparsemend.repairs import SCOPES, repair_names

INTERRUPTED = "interrupted; finished cells are in the store, if there is one"

Model = Annotated[
    str | None, typer.Option("--model", help="Built-in network, or package.module:factory.")
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="Folder of parquet files, image folder by class, .npz or .safetensors, or 'digits'.",
    ),
]
Name = Annotated[
    str | None, typer.Option("--name", help="Of the network; default that of the weights file.")
]
Mask = Annotated[
    list[str] | None,
    typer.Option(
        "--mask",
        help=f"One of {', '.join(mask_names())}; repeat for several. Default: gradual where the "
        "repair reconstructs, else magnitude.",
    ),
]
Repair = Annotated[
    list[str] | None,
    typer.Option(
        "--repair",
        help=f"Of {', '.join(repair_names())}; or as in variance+batchnorm; repeat for several.",
    ),
]
Sparsity = Annotated[
    list[str] | None,
    typer.Option(
        "--sparsity",
        help="Fraction in [0, 1), or start:end:step with both ends; repeat for several.",
    ),
]
Seeds = Annotated[
    list[int] | None,
    typer.Option("--seed", help="Draws the calibration inputs; repeat for several. Default 0."),
]
Scope = Annotated[str | None, typer.Option("--scope", help=f"One of {', '.join(SCOPES)}.")]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget", help="For rule auto, per cell: repairs (default 40) or a time, as in 20min."
    ),
]
NewBiases = Annotated[
    bool | None,
    typer.Option("--new-biases", help="Give a bias to layers with neither one nor a BatchNorm."),
]
CalibrationSize = Annotated[
    int | None, typer.Option("--calibration-size", help="Unlabelled training inputs; default 512.")
]
HeldoutSize = Annotated[
    int | None,
    typer.Option("--heldout-size", help="Further ones that measure agreement; default 256."),
]
BatchSize = Annotated[
    int | None, typer.Option("--batch-size", help="Inputs per batch; default 128.")
]
Store = Annotated[
    Path | None, typer.Option("--store", help="SQLite file that keeps finished cells.")
]
Csv = Annotated[Path | None, typer.Option("--csv", help="Write one row per cell here.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what would run and about how long; run nothing.")
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", help="Processes, of one thread each; default 1, this process."),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", help="Compute on this Ray cluster: its address, 'auto' or 'local' (extra ray)."
    ),
]
