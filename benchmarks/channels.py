"""Whole channels at half of the multiplications, beside Torch-Pruning: no training on either side.

python -m benchmarks.channels --data DATA --network cifar100_resnet20

Torch-Pruning (package torch-pruning) is asked for its criteria; without the package it is left out.
Every network is measured as the smaller dense one that it becomes, by the same counter, and its
BatchNorms are recalibrated on the same images.
"""

from __future__ import annotations

import argparse
import copy
import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import sparsemend as sm
from benchmarks._network import load
from sparsemend.graphs import shrink, to_module, trace
from sparsemend.layers import count_multiplications

BATCH_SIZE = 128
# Which layers lose channels: all that can, coupled ones together, or those that meet no others.
CHOICES = {"all": (), "inner": ("*.conv1",)}
# A share of the channels to remove → a smaller network.
Prune = Callable[[float], nn.Module]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", default="cifar100_resnet20")
    parser.add_argument("--share", type=float, default=0.5, help="of the multiplications to keep")
    parser.add_argument("--rule", nargs="+", default=["uniform"])
    parser.add_argument("--repair", nargs="+", default=["batchnorm", "reconstruct"])
    parser.add_argument("--calibration-size", type=int, default=512)
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()

    model, images = load(options.data, options.network)
    batches = images.calibration_batches(options.calibration_size, BATCH_SIZE, seed=options.seed)
    example = batches[0][:1]

    def show(what: str, network: nn.Module, smaller: nn.Module) -> None:
        share = multiplications(smaller, example) / multiplications(model, example)
        test = images.test_batches(BATCH_SIZE, limit=options.limit)
        top1 = sm.evaluate(network, test).top1
        print(f"| {what} | {100 * share:.1f} | {100 * top1:.1f} |", flush=True)

    print("| channels | multiplications % | top-1 % |\n|---|---|---|")
    show("dense", model, model)
    for name, prune in torch_pruning(model, example):
        pruned = cheapest(prune, model, example, options.share)
        recalibrate(pruned, batches)
        show(name, pruned, pruned)
    for name, include in CHOICES.items():
        for rule in options.rule:
            for repair in options.repair:
                result = sm.compress(
                    model, batches, rule=rule, mask="magnitude", repair=repair,
                    target_flops=options.share, pattern="channel", include=include,
                )  # fmt: skip
                show(f"{name}, {rule}, {repair}", result.model, shrunk(result.model, example))


def torch_pruning(model: nn.Module, example: Tensor) -> list[tuple[str, Prune]]:
    """Its criteria, within layers and over the network; none where it is not installed."""
    try:
        library: Any = importlib.import_module("torch_pruning")
    except ImportError:
        return []
    last = [module for module in model.modules() if isinstance(module, nn.Linear)]
    criteria = {
        "magnitude": library.importance.GroupMagnitudeImportance(p=2),
        "BN scale": library.importance.BNScaleImportance(),
    }

    def prune(criterion: Any, everywhere: bool, ratio: float) -> nn.Module:
        pruned = copy.deepcopy(model)
        places = [dict(pruned.named_modules())[name_of(model, module)] for module in last]
        library.pruner.BasePruner(
            pruned, example, criterion, everywhere, ratio,
            max_pruning_ratio=0.95, ignored_layers=places,
        ).step()  # fmt: skip
        return pruned

    return [
        (
            f"Torch-Pruning, {name}, {'over the network' if everywhere else 'within layers'}",
            lambda ratio, criterion=criterion, everywhere=everywhere: prune(
                criterion, everywhere, ratio
            ),
        )
        for name, criterion in criteria.items()
        for everywhere in (False, True)
    ]


def name_of(model: nn.Module, wanted: nn.Module) -> str:
    """Path of a module."""
    return next(name for name, module in model.named_modules() if module is wanted)


def cheapest(prune: Prune, model: nn.Module, example: Tensor, share: float) -> nn.Module:
    """The largest network of no more than this share of the multiplications."""
    most = share * multiplications(model, example)
    return prune(bisect(lambda ratio: multiplications(prune(ratio), example) <= most))


def bisect(enough: Callable[[float], bool], steps: int = 9) -> float:
    """The smallest share of (0, 1) that is enough, to 1 / 2^steps."""
    low, high = 0.0, 1 - 2.0**-steps
    for _ in range(steps):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def shrunk(model: nn.Module, example: Tensor) -> nn.Module:
    """The smaller dense network that computes the same."""
    return to_module(shrink(trace(model, example).graph))


def multiplications(model: nn.Module, example: Tensor) -> int:
    """Of one input, counted in all layers."""
    layers = sm.discover(model, example)
    return sum(count_multiplications(model, (*layers, *layers.others), example).values())


def recalibrate(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Let BatchNorms have the statistics of these inputs."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # an average over all batches
    model.train()
    with torch.no_grad():
        for batch in batches:
            model(batch)
    model.eval()


if __name__ == "__main__":
    main()
