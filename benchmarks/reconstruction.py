"""Reconstruction with gradual masks: accuracy at high sparsity, and one constant at a time.

python -m benchmarks.reconstruction goals --data SHARED/data --store goals.jsonl
python -m benchmarks.reconstruction ablation --data SHARED/data --store ablation.jsonl

Rule global; 1,024 calibration images, drawn by the seed; KL on 512 further training images that
the repair does not see; top-1 on the full test set. ``again`` is the second pass, whose choice of
weights is weighed by the first one's result; repair ``best`` keeps the pass with the lower KL.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

import sparsemend as sm
from benchmarks._store import Store
from sparsemend.layers import discover
from sparsemend.repair import Settings, channel_importance, reconstruct

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
    "pooled weight 1": {"pooled_weight": 1.0},
    "no logit refits": {"logit_refits": 0},
    "ridge 1 %": {"ridge": 1e-2},
    "ridge 0.03 %": {"ridge": 3e-4},
}
CALIBRATION, HELDOUT = 1024, 512


class Bench:
    """One network with its data."""

    def __init__(self, folder: Path, network: str, flip: bool) -> None:
        data_set, architecture = network.split("_")
        weights = folder / "weights" / f"{network}.safetensors"
        loaded = sm.models.load(f"cifar_{architecture}", weights)
        self.model, self.flip = loaded.model, flip
        self.images = sm.data.load(folder / data_set, mean=loaded.mean, std=loaded.std)

    def run(
        self, sparsity: float, seed: int, settings: Mapping[str, Any], passes: int
    ) -> dict[str, Any]:
        x = self.images.calibration(CALIBRATION, seed=seed)
        if self.flip:
            x = torch.cat([x, x.flip(-1)])
        batches = list(x.split(128))
        heldout = self.images.heldout(HELDOUT, calibration_size=CALIBRATION, seed=seed)
        allocation = sm.allocate(self.model, sparsity, "global")
        layers = discover(self.model, batches[0])
        constants = dict(settings)
        importance: Mapping[str, torch.Tensor] | None = None
        if not constants.pop("importance", True):
            importance = {}
        found: dict[str, Any] = {}
        for index in range(passes):
            model, start = copy.deepcopy(self.model), time.perf_counter()
            reconstruct(
                model,
                self.model,
                batches,
                layers,
                None,
                allocation,
                Settings(**constants),
                importance=importance,
            )
            importance = channel_importance(model, layers)
            name = "again" if index else "first"
            found[f"seconds_{name}"] = time.perf_counter() - start
            found[f"kl_{name}"] = sm.agreement(model, self.model, heldout).kl
            found[f"top1_{name}"] = sm.evaluate(model, self.images.test_batches(500)).top1
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=["goals", "ablation"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    parser.add_argument("--flip", action="store_true", help="add mirrored calibration images")
    options = parser.parse_args()
    store = Store(options.store)
    if options.table == "goals":
        work = [(n, s, "default", seed) for seed in options.seed for n, s in GOALS]
    else:
        seed = options.seed[0]
        work = [(n, 0.9, variant, seed) for variant in VARIANTS for n in NETWORKS]
    passes = 2 if options.table == "goals" else 1
    benches: dict[str, Bench] = {}
    for network, sparsity, variant, seed in work:
        if network not in options.network:
            continue
        cell = {
            "network": network,
            "sparsity": sparsity,
            "variant": variant,
            "seed": seed,
            "flip": options.flip,
        }

        def compute(
            network: str = network, sparsity: float = sparsity, v: str = variant, seed: int = seed
        ) -> dict[str, Any]:
            if network not in benches:
                benches[network] = Bench(options.data, network, options.flip)
            return benches[network].run(sparsity, seed, VARIANTS[v], passes)

        store.compute(cell, compute)


if __name__ == "__main__":
    main()
