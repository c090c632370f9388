"""Reconstruction with gradual masks: accuracy at high sparsity, and one constant at a time.

python -m benchmarks.reconstruction goals --data SHARED/data --store goals.jsonl
python -m benchmarks.reconstruction ablation --data SHARED/data --store ablation.jsonl

Rule global; calibration images are drawn by the seed; KL on 512 further training images that the
repair does not see; top-1 on the full test set. ``goals`` runs repair ``best`` as a user does;
``ablation`` runs one reconstruction with one constant changed, judged by KL alone.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

import sparsemend as sm
from benchmarks._network import load
from benchmarks._store import Store
from sparsemend.layers import discover
from sparsemend.repairs import Settings, reconstruct

GOALS = (
    ("cifar100_resnet20", 0.80),
    ("cifar100_resnet20", 0.90),
    ("cifar100_resnet20", 0.95),
    ("cifar10_resnet20", 0.90),
    ("cifar10_resnet20", 0.95),
    ("cifar100_resnet56", 0.90),
    ("cifar10_resnet56", 0.95),
)
NETWORKS = ("cifar100_resnet20", "cifar10_resnet20", "cifar100_resnet56", "cifar10_resnet56")
VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "no ReLU-aware refits": {"refits": 0},
    "refits on a fixed mask": {"reselections": 0},
    "twice the refits": {"refits": 8, "reselections": 4},
    "rows of equal importance": {"importance": False},
    "no pooled weight": {"pooled_weight": 0.0},
    "pooled weight 0.3": {"pooled_weight": 0.3},
    "pooled weight 1": {"pooled_weight": 1.0},
    "no logit refits": {"logit_refits": 0},
    "ridge 1 %": {"ridge": 1e-2},
    "ridge 0.03 %": {"ridge": 3e-4},
    "mirrored copies": {"mirrored": True},
}
HELDOUT = 512


class Bench:
    """One network with its data."""

    def __init__(self, folder: Path, network: str) -> None:
        self.model, self.images = load(folder, network)

    def best(self, sparsity: float, size: int, seed: int) -> dict[str, Any]:
        """Repair best, as a user runs it."""
        batches, heldout = self._inputs(size, seed)
        start = time.perf_counter()
        result = sm.compress(self.model, batches, sparsity, "global", heldout=heldout)
        return {
            "seconds": time.perf_counter() - start,
            "tried": dict(result.tried),
            "repair": result.repair,
            "kl": result.agreement.kl,
            "top1": self._top1(result.model),
        }

    def variant(
        self, sparsity: float, size: int, seed: int, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One reconstruction with other constants."""
        batches, heldout = self._inputs(size, seed)
        constants = dict(changes)
        if constants.pop("mirrored", False):
            batches = [*batches, *(batch.flip(-1) for batch in batches)]
        # An empty mapping has a weight for no layer: all rows count the same.
        importance = None if constants.pop("importance", True) else {}
        allocation = sm.allocate(self.model, sparsity, "global")
        model, start = copy.deepcopy(self.model), time.perf_counter()
        reconstruct(
            model,
            self.model,
            batches,
            discover(self.model, batches[0]),
            None,
            allocation,
            Settings(**constants),
            importance=importance,
        )
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "kl": sm.agreement(model, self.model, heldout).kl}

    def _inputs(self, size: int, seed: int) -> tuple[list[Tensor], Tensor]:
        heldout = self.images.heldout(HELDOUT, calibration_size=size, seed=seed)
        return list(self.images.calibration(size, seed=seed).split(128)), heldout

    def _top1(self, model: nn.Module) -> float:
        return sm.evaluate(model, self.images.test_batches(500)).top1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=["goals", "ablation"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    parser.add_argument("--calibration-size", type=int, default=1024)
    options = parser.parse_args()
    store = Store(options.store)
    goals = options.table == "goals"
    if goals:
        work = [(n, s, "best", seed) for seed in options.seed for n, s in GOALS]
    else:
        work = [(n, 0.9, variant, options.seed[0]) for n in NETWORKS for variant in VARIANTS]
    work = [item for item in work if item[0] in options.network]
    benches: dict[str, Bench] = {}
    rows: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for network, sparsity, variant, seed in work:
        cell = {
            "network": network,
            "sparsity": sparsity,
            "variant": variant,
            "seed": seed,
            "calibration_size": options.calibration_size,
        }

        def run(
            network: str = network,
            sparsity: float = sparsity,
            variant: str = variant,
            seed: int = seed,
        ) -> dict[str, Any]:
            if network not in benches:
                benches[network] = Bench(options.data, network)
            bench = benches[network]
            if goals:
                return bench.best(sparsity, options.calibration_size, seed)
            return bench.variant(sparsity, options.calibration_size, seed, VARIANTS[variant])

        key = (network, f"{sparsity:.2f}") if goals else (variant, network)
        rows.setdefault(key, []).append(store.compute(cell, run))
    print(_goals_table(rows) if goals else _ablation_table(rows, options.network))


def _goals_table(rows: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]]) -> str:
    lines = ["| network | sparsity | kept endings | KL | top-1 % |", "|---|---|---|---|---|"]
    for (network, sparsity), found in rows.items():
        endings = ", ".join(result["repair"].removeprefix("reconstruct") or "-" for result in found)
        kl, top1 = ([f(r) for r in found] for f in (lambda r: r["kl"], lambda r: 100 * r["top1"]))
        lines.append(
            f"| {network} | {sparsity} | {endings} | {_spread(kl, 3)} | **{_spread(top1, 1)}** |"
        )
    return "\n".join(lines)


def _ablation_table(
    rows: Mapping[tuple[str, ...], Sequence[Mapping[str, Any]]], networks: Sequence[str]
) -> str:
    lines = [f"| variant | {' | '.join(networks)} |", "|---" * (1 + len(networks)) + "|"]
    for variant in VARIANTS:
        cells = (f"{rows[variant, network][0]['kl']:.3f}" for network in networks)
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _spread(values: Sequence[float], digits: int) -> str:
    """Mean ± standard deviation over seeds."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


if __name__ == "__main__":
    main()
