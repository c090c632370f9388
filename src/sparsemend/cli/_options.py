"""Options that several commands share, and what they load."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn

import sparsemend as sm
from sparsemend.data import ImageData
from sparsemend.models import LoadedModel

_PATHS = "A safetensors file, or a state dict that torch.load(weights_only=True) reads."

Model = Annotated[str, typer.Option("--model", help="Built-in network, or package.module:factory.")]
Weights = Annotated[Path | None, typer.Option("--weights", help=_PATHS)]
Data = Annotated[
    str,
    typer.Option(
        "--data",
        help="Folder of parquet files, image folder by class, .npz or .safetensors, or 'digits'.",
    ),
]
Classes = Annotated[
    int | None, typer.Option("--num-classes", help="Where the weights do not tell.")
]
Width = Annotated[int | None, typer.Option("--width", help="Where the weights do not tell.")]
Mean = Annotated[
    str | None, typer.Option("--mean", help="Per channel, as 0.49,0.48,0.45; else the weights'.")
]
Std = Annotated[str | None, typer.Option("--std", help="Per channel; else the weights'.")]
CalibrationSize = Annotated[
    int, typer.Option("--calibration-size", help="Unlabelled training inputs to use.")
]
Seed = Annotated[int, typer.Option("--seed", help="Draws the calibration inputs.")]
BatchSize = Annotated[int, typer.Option("--batch-size", help="Inputs per batch.")]
Limit = Annotated[
    int | None, typer.Option("--limit", help="Evaluate on the first N test inputs; default all.")
]
Device = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, …; default cuda where there is one.")
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write a page of figures here; default beside what the command writes, if anything.",
    ),
]
NoReport = Annotated[bool, typer.Option("--no-report", help="Write no page of figures.")]
Sparsity = Annotated[
    float, typer.Option("--sparsity", help="Fraction of weights to remove, in [0, 1).")
]
NewBiases = Annotated[
    bool,
    typer.Option("--new-biases", help="Give a bias to layers with neither one nor a BatchNorm."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object, for machines.")]


@dataclass(frozen=True)
class Source:
    """A loaded network and its data."""

    loaded: LoadedModel
    data: ImageData
    batch_size: int

    @property
    def model(self) -> nn.Module:
        return self.loaded.model

    def calibration(self, size: int, seed: int, *, flip: bool = False) -> list[Tensor]:
        """Unlabelled batches from the training split; ``flip`` adds mirrored copies."""
        images = self.data.calibration(size, seed=seed)
        if flip:
            images = torch.cat([images, images.flip(-1)])
        return list(images.split(self.batch_size))

    def heldout(self, size: int, calibration_size: int, seed: int) -> list[Tensor]:
        """Unlabelled batches from the training split that the calibration does not contain."""
        unseen = self.data.heldout(size, calibration_size=calibration_size, seed=seed)
        return list(unseen.split(self.batch_size))

    def test(self, limit: int | None) -> Iterator[tuple[Tensor, Tensor]]:
        """Labelled batches from the test split."""
        return self.data.test_batches(self.batch_size, limit=limit)


def load_model(
    model: str,
    weights: Path | None,
    num_classes: int | None,
    width: int | None,
    device: str | None,
) -> LoadedModel:
    """The network on its device."""
    loaded = sm.models.load(model, weights, num_classes=num_classes, width=width)
    chosen = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        loaded.model.to(chosen)
    except (RuntimeError, AssertionError) as error:
        raise sm.SparsemendError(
            "--device cannot be used", chosen, "cpu, cuda, cuda:1 …"
        ) from error
    return loaded


def load_source(
    model: str,
    weights: Path | None,
    data: str,
    num_classes: int | None,
    width: int | None,
    mean: str | None,
    std: str | None,
    batch_size: int,
    device: str | None,
) -> Source:
    """The network and its data; normalisation from the options, else from the weights."""
    if batch_size < 1:
        raise sm.SparsemendError("--batch-size is too small", batch_size, "1 or more")
    loaded = load_model(model, weights, num_classes, width, device)
    images = sm.data.load(
        data,
        mean=_numbers("--mean", mean) or loaded.mean,
        std=_numbers("--std", std) or loaded.std,
    )
    return Source(loaded, images, batch_size)


def check_out(out: Path | None, *endings: str, option: str = "--out") -> None:
    """Refuse a file that could not be written, before any work."""
    if out is None:
        return
    if out.suffix not in endings:
        raise sm.SparsemendError(f"{option} has another ending", str(out), " or ".join(endings))
    if not out.parent.is_dir():
        raise sm.SparsemendError(f"the folder of {option} does not exist", str(out.parent))


def report_path(report: Path | None, no_report: bool, default: Path | None) -> Path | None:
    """Where a command writes its report: as asked, else the default; None for nowhere."""
    if no_report and report is not None:
        raise sm.SparsemendError("--report and --no-report contradict each other")
    chosen = None if no_report else report or default
    check_out(chosen, ".html", option="--report")
    return chosen


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise sm.SparsemendError(
            f"{option} is no list of numbers", text, "0.49,0.48,0.45"
        ) from error
