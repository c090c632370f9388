"""What a short training on unlabelled images adds to a reconstruction.

python -m benchmarks.distillation rows --data SHARED/data --store distillation.jsonl
python -m benchmarks.distillation rows --data SHARED/data --store distillation.jsonl \
    --row cifar100_resnet20 0.9 256 --row cifar100_resnet20 0.9 1024 --rule global --steps 0 100 400
python -m benchmarks.distillation rows --data SHARED/data --store distillation.jsonl \
    --row cifar100_resnet20 0.9 1024 --rule auto --budget 16 --steps 400
python -m benchmarks.distillation table --store distillation.jsonl
python -m benchmarks.distillation figure --store distillation.jsonl --out docs/images

A row is one network, sparsity, rule, number of images, seed and number of steps: repair
``reconstruct`` at 0 steps, ``reconstruct+distill`` at others, one at a time, as a user makes them.
Calibration images are drawn by the seed; KL on 512 further training images, by which the training
keeps its best; top-1 on the full test set, or on the first ``--limit`` images. Rows that the store
has are not computed again. The figure (inputs.svg, inputs.csv) shows what more images and more
time bring, wherever a setting has several numbers of images. Seconds are those of the compression
alone, of one CPU thread what the process has used, on a GPU by the wall.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import sparsemend as sm
from benchmarks._device import add_device, device_name, timed
from benchmarks._network import load
from benchmarks._store import Store
from benchmarks._tables import spread
from sparsemend.reports.drawing.figure import (
    Axis,
    Dot,
    Figure,
    Group,
    Label,
    Line,
    Mark,
    Panel,
    Plate,
    Table,
)
from sparsemend.reports.drawing.images import write_images
from sparsemend.reports.drawing.palette import series_style
from sparsemend.reports.drawing.scale import Linear, Logarithmic, nice_end

HELDOUT = 512
# All of the folder's 8,192 training images but those that judge.
MOST = 8192 - HELDOUT
# Network, sparsity and number of images.
ROWS = (
    ("cifar100_resnet20", 0.90, 1024),
    ("cifar100_resnet20", 0.90, MOST),
    ("cifar100_resnet20", 0.95, 1024),
    ("cifar100_resnet20", 0.98, 1024),
    ("cifar10_resnet20", 0.95, 1024),
    ("cifar10_resnet20", 0.98, 1024),
    ("cifar100_resnet56", 0.90, 1024),
    ("cifar10_resnet56", 0.95, 1024),
    ("cifar100_resnet18", 0.95, 1024),
    ("cifar100_resnet18", 0.98, 1024),
    ("cifar100_resnet34", 0.98, MOST),
    ("cifar100_resnet34", 0.99, MOST),
    ("cifar100_vgg16_bn", 0.98, MOST),
)
BATCH = 128
# Settings that rows of a table share, and what seeds are averaged over.
PLACE = ("network", "sparsity", "images", "rule", "budget", "steps", "tested")

# Pixels of a panel.
SIZE = 300.0, 190.0

Cell = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]


def measure(data: Path, cell: Cell, device: torch.device) -> dict[str, Any]:
    """Loss, accuracy and time of one row."""
    model, images = _load(data, cell["network"], device)
    size, seed, steps = cell["images"], cell["seed"], cell["steps"]
    seen = images.calibration_batches(size, BATCH, seed=seed)
    unseen = images.heldout_batches(HELDOUT, BATCH, calibration_size=size, seed=seed)
    training = {"distill": steps} if steps else {}
    work = partial(
        sm.compress,
        model,
        [batch.to(device) for batch in seen],
        cell["sparsity"],
        cell["rule"],
        repair="reconstruct+distill" if steps else "reconstruct",
        budget=cell.get("budget"),
        heldout=[batch.to(device) for batch in unseen],
        **training,
    )
    used, wall = time.process_time(), list[float]()
    result = timed(work, device, wall)
    used = time.process_time() - used
    test = ((x.to(device), labels) for x, labels in images.test_batches(limit=cell["tested"]))
    found = {
        "kl": result.agreement.kl,
        "top1": sm.evaluate(result.model, test).top1,
        "seconds": used if device.type == "cpu" else wall[0],
        "machine": device_name(device),
    }
    return found if result.search is None else {**found, "winner": result.search.winner}


@lru_cache(1)
def _load(data: Path, network: str, device: torch.device) -> tuple[nn.Module, sm.data.DataSet]:
    return load(data, network, device)


def cells(options: argparse.Namespace) -> Iterator[Cell]:
    """The rows that are asked for, those of one seed before those of the next."""
    names = ("seed", "row", "rule", "steps")
    for seed, row, rule, steps in product(*(getattr(options, name) for name in names)):
        network, sparsity, images = row
        yield {
            "network": network,
            "sparsity": float(sparsity),
            "images": int(images),
            "rule": rule,
            "seed": seed,
            "steps": steps,
            "tested": options.limit,
            **({"budget": options.budget} if rule == "auto" and options.budget else {}),
        }


def table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table: means over seeds, ± their standard deviation."""
    places: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        places.setdefault(tuple(row["cell"].get(name) for name in PLACE), []).append(row)
    lines = [
        "| network | sparsity | images | rule | steps | seeds | KL | top-1 % | seconds | commit |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    ordered = sorted(places, key=lambda place: [f"{part:>12}" for part in map(str, place)])
    for place in ordered:
        network, sparsity, images, rule, budget, steps, tested = place
        found = sorted(places[place], key=lambda row: row["cell"]["seed"])
        kl, top1, seconds = (
            [row["result"][name] for row in found] for name in ("kl", "top1", "seconds")
        )
        seeds = ", ".join(str(row["cell"]["seed"]) for row in found)
        commits = ", ".join(dict.fromkeys(row["commit"] for row in found))
        allotted = f"`{rule}`" if budget is None else f"`{rule}`, {budget}"
        accuracy = spread([100 * value for value in top1], 1)
        lines.append(
            f"| {network} | {sparsity:.2f} | {images:,} | {allotted} | {steps} | {seeds} "
            f"| {spread(kl, 3)} | {accuracy}{'' if tested is None else f' ({tested:,})'} "
            f"| {spread(seconds, 0)} | {commits} |"
        )
    return lines


def figure(rows: Rows) -> Figure | None:
    """Top-1 against images and against time; None where all settings have one number of images."""
    settings: dict[tuple[Any, ...], dict[str, Rows]] = {}
    for row in sorted(rows, key=lambda row: row["cell"]["images"]):
        cell = row["cell"]
        place = cell["network"], cell["sparsity"], cell["rule"]
        steps = f"{cell['steps']} steps" if cell["steps"] else "reconstruct"
        own = settings.setdefault(place, {})
        own[steps] = [*own.get(steps, []), row]
    shown = {
        place: curves
        for place, curves in settings.items()
        if any(len({row["cell"]["images"] for row in curve}) > 1 for curve in curves.values())
    }
    if not shown:
        return None
    return Figure(
        "inputs",
        "What more unlabelled images bring",
        "Top-1 after repair against the number of unlabelled images, and against the time that the "
        "compression takes: reconstruct alone, and trained behind it.",
        tuple(_plate(place, curves) for place, curves in shown.items()),
        Table(
            ("network", "sparsity", "rule", "steps", "images", "seed", "top1", "seconds"),
            tuple(
                (
                    *(*place, *(row["cell"][name] for name in ("steps", "images", "seed"))),
                    *(row["result"][name] for name in ("top1", "seconds")),
                )
                for place, curves in shown.items()
                for curve in curves.values()
                for row in curve
            ),
        ),
    )


def _plate(place: tuple[Any, ...], curves: Mapping[str, Rows]) -> Plate:
    network, sparsity, rule = place
    style = series_style(curves)
    every = [row for curve in curves.values() for row in curve]
    highest = 100 * max(row["result"]["top1"] for row in every)
    lowest = 100 * min(row["result"]["top1"] for row in every)
    y = Linear(0.9 * lowest, nice_end(highest))
    axes: list[tuple[str, Any]] = [
        ("unlabelled images", lambda row: row["cell"]["images"]),
        ("minutes", lambda row: row["result"]["seconds"] / 60),
    ]
    panels = []
    for title, read in axes:
        found = [read(row) for row in every]
        x = Logarithmic(min(found) / 1.06, max(found) * 1.06, plain=True)
        marks: list[Mark] = []
        for number, (name, curve) in enumerate(curves.items()):
            colour, shape = style[name]
            dots = [
                Dot(read(row), 100 * row["result"]["top1"], colour, shape, 3.2) for row in curve
            ]
            marks.append(Line(tuple((dot.x, dot.y) for dot in dots), colour))
            marks.append(Group(name, tuple(dots)))
            if not panels:
                marks.append(Label(x.low, y.high, name, colour, dx=8, dy=14 + 16 * number))
        panels.append(Panel(Axis(x, title), Axis(y, "top-1 %"), tuple(marks), *SIZE))
    title = f"{network} at {sparsity:g}, rule {rule}"
    return Plate((tuple(panels),), f"Top-1 against images and minutes, {title}", title)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["rows", "table", "figure"])
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--data", type=Path, help="folder of weights and images, for rows")
    parser.add_argument(
        "--row", nargs=3, action="append", metavar=("NETWORK", "SPARSITY", "IMAGES")
    )
    parser.add_argument("--rule", nargs="+", default=["global", "erk"])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 400])
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", help="of rule auto: repairs, or a time such as 20min")
    parser.add_argument("--limit", type=int, help="test images, all by default")
    parser.add_argument("--out", type=Path, help="folder of the figure")
    add_device(parser)
    options = parser.parse_args(arguments)
    options.row = options.row or ROWS
    store = Store(options.store)
    if options.what == "rows":
        if options.data is None:
            parser.error("rows need --data")
        for cell in cells(options):
            store.compute(cell, partial(measure, options.data, cell, options.device))
    if options.what == "figure":
        drawn = figure(list(store.rows.values()))
        if options.out is None or drawn is None:
            parser.error("a figure needs --out, and rows of several numbers of images")
        for kind in ("svg", "csv"):
            write_images([drawn], options.out, kind)
    print("\n".join(table(store.rows.values())))


if __name__ == "__main__":
    main()
