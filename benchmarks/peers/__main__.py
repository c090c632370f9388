"""Our reconstruction beside its published peers: same densities, same images, one process.

python -m benchmarks.peers --data SHARED/data --network cifar100_resnet20 --store peers.jsonl
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import sparsemend as sm
from benchmarks import _network
from benchmarks._store import Store
from benchmarks.peers.obc import obc, obc_sequential
from benchmarks.peers.sparsegpt import sparsegpt

ENDINGS = ("none", "batchnorm")
# What the papers do after pruning; the sequential variant has no paper of its own.
PUBLISHED = {"sparsegpt": "none", "obc": "batchnorm"}
OURS = "reconstruct"
METHODS = (*PUBLISHED, "obc-sequential", OURS)
HELDOUT = 1000


@dataclass(frozen=True)
class Problem:
    """One network and its images."""

    dense: nn.Module
    inputs: Sequence[Tensor]
    heldout: Sequence[Tensor]
    test: Sequence[tuple[Tensor, Tensor]]

    def run(self, method: str, sparsity: float) -> dict[str, Any]:
        """Prune by one method; seconds, and by ending how good the network is then."""
        layers = sm.discover(self.dense, self.inputs[0])
        allocation = sm.allocate(self.dense, sparsity, "global", layers=layers)
        start = _now()
        model, masks = self._prune(method, sparsity, layers, allocation)
        result: dict[str, Any] = {**_elapsed(start)}
        kept = {name: int(mask.sum()) for name, mask in masks.items()}
        assert kept == dict(allocation), "every method keeps exactly what was allocated"
        result["none"] = self._measure(model)
        if method != OURS:
            start = _now()
            sm.recalibrate(model, self.inputs, progress=False)
            seconds = _elapsed(start)
            result["batchnorm"] = {**self._measure(model), **seconds}
        return result

    def _prune(
        self, method: str, sparsity: float, layers: sm.LayerSet, allocation: Mapping[str, int]
    ) -> tuple[nn.Module, Mapping[str, Tensor]]:
        if method == OURS:
            done = sm.compress(
                self.dense,
                self.inputs,
                sparsity,
                rule="global",
                mask="gradual",
                repair="reconstruct",
                # Its own comparison is not part of the method: as little of it as there is.
                heldout=[self.heldout[0][:1]],
                progress=False,
            )
            return done.model, done.masks
        model = copy.deepcopy(self.dense)
        if method == "sparsegpt":
            return model, sparsegpt(model, self.inputs, layers, allocation)
        if method == "obc":
            return model, obc(model, self.inputs, layers, allocation)
        return model, obc_sequential(model, self.inputs, layers, allocation, self.dense)

    def _measure(self, model: nn.Module) -> dict[str, float]:
        return {
            "kl": sm.agreement(model, self.dense, self.heldout).kl,
            "top1": sm.evaluate(model, self.test, progress=False).top1,
        }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _elapsed(start: tuple[float, float]) -> dict[str, float]:
    wall, cpu = _now()
    return {"seconds": wall - start[0], "cpu_seconds": cpu - start[1]}


def rows(results: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Lines of the table from the results by method; a * marks the better ending."""
    unit = results["sparsegpt"]["cpu_seconds"]
    lines: list[tuple[str, ...]] = []
    for method, result in results.items():
        endings = {ending: result[ending] for ending in ENDINGS if ending in result}
        best = max(endings, key=lambda ending: endings[ending]["top1"])
        for ending, found in endings.items():
            cpu = result["cpu_seconds"] + found.get("cpu_seconds", 0.0)
            published = PUBLISHED.get(method) == ending
            lines.append(
                (
                    method,
                    ending + (" (as published)" if published else ""),
                    f"{found['kl']:.2f}",
                    f"{100 * found['top1']:.1f}" + ("*" if ending == best else ""),
                    f"{cpu:.0f}",
                    f"{cpu / unit:.2f}",
                )
            )
    return lines


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the store lacks, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", nargs="+", default=["cifar100_resnet20"])
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.9])
    parser.add_argument("--method", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--calibration-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("peers.jsonl"))
    options = parser.parse_args(arguments)

    store = Store(options.store)
    print("| network | sparsity | method | ending | KL | top-1 | seconds | × SparseGPT |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for network in options.network:
        problem = load(options.data, network, options.calibration_size, options.seed)
        for sparsity in options.sparsity:
            results = {}
            for method in dict.fromkeys(("sparsegpt", *options.method)):
                cell = {
                    "network": network,
                    "sparsity": sparsity,
                    "method": method,
                    "calibration_size": options.calibration_size,
                    "seed": options.seed,
                }
                work = partial(problem.run, method, sparsity)
                results[method] = store.compute(cell, work)
            for line in rows(results):
                print(f"| {network} | {sparsity:g} | {' | '.join(line)} |", flush=True)


def load(data: Path, network: str, calibration_size: int, seed: int) -> Problem:
    """A network of the folder with its calibration, held-out and test images."""
    model, images = _network.load(data, network)
    heldout = images.heldout(HELDOUT, calibration_size=calibration_size, seed=seed)
    return Problem(
        model,
        images.calibration(calibration_size, seed=seed).split(128),
        heldout.split(250),
        list(images.test_batches(500)),
    )


if __name__ == "__main__":
    main()
