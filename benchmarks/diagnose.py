"""Time of the closed-form diagnosis against one forward pass and against the direct way.

python -m benchmarks.diagnose --network cifar_resnet20 --images 256 --json

Everything runs in one process, interleaved and repeated; medians are printed. The direct way
prunes every layer to every density, runs it on the layer's inputs and streams the same
statistics. Random weights and inputs will do for timing.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sparsemend as sm
from benchmarks._device import add_device, timed
from sparsemend.calibration import DEFAULT_DENSITIES, PairedMoments, kept_count
from sparsemend.diagnosis import diagnose_repairs
from sparsemend.execution.batches import evaluation_mode
from sparsemend.layers import LayerSet, channel_last, stored_weight, weight_matrix
from sparsemend.masks import MaskProblem, get_mask_rule
from sparsemend.operators import OPERATORS

REPAIRS = ("variance", "affine")
Curves = dict[str, np.ndarray]


def ours(model: nn.Module, batches: list[Tensor]) -> Curves:
    """Calibrate once, then read both operators' curves off the moments."""
    calibration = sm.calibrate(model, batches, progress=False)
    found = diagnose_repairs(model, calibration, REPAIRS, progress=False)
    return {"raw": found[0].raw} | {d.repair: d.residual for d in found}


def direct(model: nn.Module, batches: list[Tensor], layers: LayerSet) -> Curves:
    """Run every layer at every density on its own inputs."""
    modules: dict[str, Any] = dict(model.named_modules())
    moments: dict[str, PairedMoments] = {}
    handles = []
    for layer in layers:
        module = modules[layer.name]
        dense = weight_matrix(module.weight.detach(), layer)
        kept = [kept_count(d, layer) for d in DEFAULT_DENSITIES]
        masks = get_mask_rule("magnitude").masks(MaskProblem(dense), kept)
        weights = [stored_weight(dense * mask, layer) for mask in masks]
        store = PairedMoments.empty(len(weights), layer.rows, dense.device)
        moments[layer.name] = store

        def hook(
            module: Any,
            args: tuple[Tensor],
            output: Tensor,
            weights: list[Tensor] = weights,
            store: PairedMoments = store,
        ) -> None:
            own = module.weight
            variants = []
            for weight in weights:
                module.weight = nn.Parameter(weight, requires_grad=False)
                variants.append(channel_last(module, module.forward(args[0])))
            module.weight = own
            z = channel_last(module, output)
            rows = max(1, (1 << 22) // (len(weights) * z.shape[1]))
            parts = zip(z.split(rows), *(v.split(rows) for v in variants), strict=True)
            for part, *pruned in parts:
                store.update(part, torch.stack(pruned))

        handles.append(module.register_forward_hook(hook))
    forward(model, batches)
    for handle in handles:
        handle.remove()
    curves: Curves = {}
    for kind in ("raw", *REPAIRS):
        rows = []
        for layer in layers:
            found = moments[layer.name].statistics()
            alive = found.dense_variance > 1e-12 * found.dense_variance.max()
            raw = found.raw_distortion
            damage = raw if kind == "raw" else OPERATORS[kind].residual(found)
            rows.append((damage / found.dense_variance)[:, alive].mean(dim=1).cpu().numpy())
        curves[kind] = np.stack(rows)
    return curves


def forward(model: nn.Module, batches: list[Tensor]) -> None:
    """One dense forward pass over the calibration inputs."""
    with evaluation_mode(model):
        for batch in batches:
            model(batch)


def relative_error(found: Curves, expected: Curves) -> float:
    """Largest error relative to the expected damage, where anything was pruned."""
    worst = 0.0
    for kind, values in expected.items():
        there = expected["raw"] > 1e-9
        error = np.abs(found[kind] - values)[there] / np.abs(values)[there]
        worst = max(worst, float(error.max()))
    return worst


def rates(device: torch.device) -> dict[str, float]:
    """Speeds that the cost of ours rests on: products in 10⁹ multiply-adds/s, copies in GB/s."""
    wide, many = 512, 4608
    weight, table = torch.randn(wide, many), torch.randn(many, 32)
    columns = torch.arange(many, dtype=torch.int32).repeat(wide)
    starts = torch.arange(0, wide * many, many // 24, dtype=torch.int32)
    lines = torch.randn(30, 960, 64)
    square = torch.randn(many, many)
    images = torch.randn(32, 64, 32 * 32)
    weight, table, columns, starts, lines, square, images = (
        tensor.to(device) for tensor in (weight, table, columns, starts, lines, square, images)
    )
    laid_out = torch.empty(32 * 32, 32 * 64, device=device)
    small = torch.ones(1, device=device)
    work: dict[str, tuple[float, Callable[[], Any]]] = {
        "dense product": (wide * many * many, lambda: weight @ square),
        "product of shifted lines": (30 * 960 * 64**2, lambda: torch.bmm(lines.mT, lines)),
        "sparse product": (
            wide * many * 32,
            lambda: nn.functional.embedding_bag(
                columns, table, starts, mode="sum", per_sample_weights=weight.flatten()
            ),
        ),
        "layout copy": (
            4 * images.numel(),
            lambda: laid_out.copy_(images.view(32 * 64, -1).t()),
        ),
        "plain copy": (4 * images.numel(), lambda: laid_out.view_as(images).copy_(images)),
        "call, 10⁹/s": (1000, lambda: [small.add_(1) for _ in range(1000)]),
    }
    found = {}
    for name, (amount, call) in work.items():
        seconds: list[float] = []
        for _ in range(7):
            timed(call, device, seconds)
        found[name] = amount / statistics.median(seconds) / 1e9
    return found


def _resident_mib() -> float:
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="cifar_resnet20")
    parser.add_argument("--weights", default=None, help="default: random weights")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    add_device(parser)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rates", action="store_true", help="only measure machine rates")
    options = parser.parse_args()

    device = options.device
    torch.manual_seed(options.seed)
    if options.rates:
        measured = rates(device) | {"threads": torch.get_num_threads()}
        print(json.dumps(measured) if options.json else measured)
        return
    if options.weights:
        model = sm.models.load(options.network, options.weights).model
    else:
        model = sm.models.create(options.network, num_classes=100).eval()
    model.to(device)
    images = torch.randn(options.images, 3, 32, 32).to(device)
    batches = list(images.split(options.batch_size))
    layers = sm.discover(model, batches[0])

    forward(model, batches)
    before = _resident_mib()
    ours(model, batches)
    extra = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 - before
    seconds: dict[str, list[float]] = {"forward": [], "ours": [], "direct": []}
    for _ in range(options.repeats):
        timed(lambda: forward(model, batches), device, seconds["forward"])
        found = timed(lambda: ours(model, batches), device, seconds["ours"])
        expected = timed(lambda: direct(model, batches, layers), device, seconds["direct"])
    medians = {f"{key}_seconds": statistics.median(values) for key, values in seconds.items()}
    report = {
        "network": options.network,
        "device": str(device),
        "images": options.images,
        **medians,
        "direct_over_ours": medians["direct_seconds"] / medians["ours_seconds"],
        "ours_over_forward": medians["ours_seconds"] / medians["forward_seconds"],
        "max_relative_error": relative_error(found, expected),
        "peak_extra_mib": extra,
        "threads": torch.get_num_threads(),
    }
    if options.json:
        print(json.dumps(report))
        return
    for key, value in report.items():
        print(f"{key:<20} {value:.4g}" if isinstance(value, float) else f"{key:<20} {value}")


if __name__ == "__main__":
    main()
