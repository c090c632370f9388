"""What the commands on grids load and print."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import typer
from torch import nn

import sparsemend as sm
from sparsemend.cli import _options as opt
from sparsemend.cli._sweep_config import Values
from sparsemend.data import ImageData

# Values that have another name in sm.sweep; the device is where networks are loaded.
_NAMES = {
    "rule": "rules",
    "mask": "masks",
    "repair": "repairs",
    "seed": "seeds",
    "sparsity": "sparsities",
}


def load_networks(
    values: Values, tables: Sequence[Values]
) -> tuple[dict[str, nn.Module], dict[str, ImageData]]:
    """Name → network, and name → its images."""
    models: dict[str, nn.Module] = {}
    images: dict[str, ImageData] = {}
    for table in tables:
        name = table["name"]
        if name in models:
            raise sm.SparsemendError(
                "two networks have the same name", name, fix="give each table a name of its own"
            )
        source = opt.load_source(
            table["model"],
            Path(table["weights"]) if "weights" in table else None,
            table["data"],
            table.get("num_classes"),
            table.get("width"),
            table.get("mean"),
            table.get("std"),
            values.get("batch_size", 128),
            values.get("device"),
        )
        models[name], images[name] = source.model, source.data
    return models, images


def sweep_options(values: Values) -> dict[str, Any]:
    """Arguments of :func:`sparsemend.sweeps`; what is not given keeps its default."""
    if "sparsity" not in values:
        raise sm.SparsemendError("--sparsity is missing", fix="as in --sparsity 0.80:0.98:0.01")
    return {_NAMES.get(key, key): value for key, value in values.items() if key != "device"}


def print_preview(result: sm.SweepResult) -> None:
    """What a dry run found."""
    print(f"{len(result.records)} cells are done, {len(result.pending)} to do: {result.estimate}")
    for cell in result.pending:
        print(f"  {cell}")


def print_files(csv: Path | None, store: str | Path | None) -> None:
    """Where results are."""
    for file in (csv, store):
        if file is not None:
            print(f"wrote {file}")


def fail_if_cells_did(result: sm.SweepResult) -> None:
    """Exit with 1 where cells failed: the others are done."""
    if result.failures:
        raise typer.Exit(1)


def summary(result: sm.SweepResult) -> dict[str, Any]:
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
