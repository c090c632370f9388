"""Reconstruction with gradual masks: accuracy at high sparsity, and one constant at a time.

python -m benchmarks.reconstruction goals --data SHARED/data --store goals.sqlite
python -m benchmarks.reconstruction ablation --data SHARED/data --store ablation.jsonl

Rule global; calibration images are drawn by the seed; KL on 512 further training images that the
repair does not see; top-1 on the full test set. ``goals`` sweeps repair ``best`` as a user does;
``ablation`` runs one reconstruction with one constant changed, judged by KL alone; a sweep cannot.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

import sparsemend as sm
from benchmarks._device import add_device, timed
from benchmarks._network import load
from benchmarks._store import Store
from benchmarks._tables import spread
from sparsemend.execution.augmentation import augmented, mirrored
from sparsemend.repairs import FitSettings, Support
from sparsemend.repairs.reconstruction import reconstruct
from sparsemend.session import Session
from sparsemend.solvers import FURTHER, ROUGH, THOROUGH
from sparsemend.sweeps import Record

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
    "refits on a fixed mask": {"schedules": (THOROUGH,)},
    "three choices anew": {"schedules": (ROUGH, ROUGH, THOROUGH)},
    "a thorough first choice": {"schedules": (THOROUGH, FURTHER, FURTHER)},
    "twice the refits": {"refits": 8, "schedules": (ROUGH, *(FURTHER,) * 4)},
    "rows of equal importance": {"importance": False},
    "no pooled weight": {"pooled_weight": 0.0},
    "pooled weight 0.3": {"pooled_weight": 0.3},
    "pooled weight 1": {"pooled_weight": 1.0},
    "no logit refits": {"logit_refits": 0},
    "ridge 1 %": {"ridge": 1e-2},
    "ridge 0.03 %": {"ridge": 3e-4},
    "mirrored copies": {"inputs": mirrored},
    "one changed copy": {"inputs": partial(augmented, copies=1)},
    "three changed copies": {"inputs": partial(augmented, copies=3)},
}
HELDOUT = 512


class Bench:
    """One network with its data."""

    def __init__(self, folder: Path, network: str, device: torch.device) -> None:
        self.device = device
        self.model, self.images = load(folder, network, device)

    def variant(
        self, sparsity: float, size: int, seed: int, changes: Mapping[str, Any]
    ) -> dict[str, Any]:
        """One reconstruction with other constants."""
        batches = list(self.images.calibration(size, seed=seed).split(128))
        heldout = self.images.heldout(HELDOUT, calibration_size=size, seed=seed)
        constants = dict(changes)
        batches = constants.pop("inputs", list)(batches)
        # An empty mapping has a weight for no layer: all rows count the same.
        importance = None if constants.pop("importance", True) else {}
        session = Session(self.model, batches)
        allocation = sm.allocate(self.model, sparsity, "global")
        model, seconds = copy.deepcopy(self.model), list[float]()
        support, settings = Support(allocation, None), FitSettings(**constants)
        work = partial(reconstruct, session, model, support, settings, importance)
        timed(work, self.device, seconds)
        return {"seconds": seconds[0], "kl": sm.agreement(model, self.model, heldout).kl}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", choices=["goals", "ablation"])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--network", nargs="+", default=list(NETWORKS))
    parser.add_argument("--calibration-size", type=int, default=1024)
    parser.add_argument("--sparsity", type=float, default=0.9, help="of the ablation")
    parser.add_argument("--variant", nargs="+", default=list(VARIANTS), help="of the ablation")
    add_device(parser)
    options = parser.parse_args()
    if options.table == "goals":
        print(_goals_table(_goals(options)))
    else:
        print(_ablation_table(_ablation(options), options))


def _goals(options: argparse.Namespace) -> dict[tuple[str, float], list[Record]]:
    """Records over the seeds by goal; repair best on all of a network's sparsities."""
    found: dict[tuple[str, float], list[Record]] = {}
    for network in dict.fromkeys(name for name, _ in GOALS if name in options.network):
        model, images = load(options.data, network, options.device)
        result = sm.sweep(
            {network: model},
            images,
            [sparsity for name, sparsity in GOALS if name == network],
            rules="global",
            repairs="best",
            seeds=options.seed,
            calibration_size=options.calibration_size,
            heldout_size=HELDOUT,
            store=options.store,
        )
        for failure in result.failures:
            print(f"{failure.cell}: {failure.error}")
        for record in result.records:
            found.setdefault((network, record.cell.sparsity), []).append(record)
    return found


def _ablation(options: argparse.Namespace) -> dict[tuple[str, str], float]:
    """KL by variant and network."""
    store, seed, size = Store(options.store), options.seed[0], options.calibration_size
    found: dict[tuple[str, str], float] = {}
    for network in options.network:
        bench = Bench(options.data, network, options.device)
        for variant in options.variant:
            cell = {
                "network": network,
                "sparsity": options.sparsity,
                "variant": variant,
                "seed": seed,
                "calibration_size": size,
                **({} if options.device.type == "cpu" else {"device": str(options.device)}),
            }
            work = partial(bench.variant, options.sparsity, size, seed, VARIANTS[variant])
            found[variant, network] = store.compute(cell, work)["kl"]
    return found


def _goals_table(found: Mapping[tuple[str, float], Sequence[Record]]) -> str:
    lines = ["| network | sparsity | kept endings | KL | top-1 % |", "|---|---|---|---|---|"]
    for (network, sparsity), records in found.items():
        kept = (record.kept_repair.removeprefix("reconstruct") or "-" for record in records)
        kl = [record.kl for record in records]
        top1 = [100 * (record.top1_repaired or 0.0) for record in records]
        lines.append(
            f"| {network} | {sparsity:.2f} | {', '.join(kept)} | {spread(kl, 3)} "
            f"| **{spread(top1, 1)}** |"
        )
    return "\n".join(lines)


def _ablation_table(found: Mapping[tuple[str, str], float], options: argparse.Namespace) -> str:
    networks = options.network
    lines = [f"| variant | {' | '.join(networks)} |", "|---" * (1 + len(networks)) + "|"]
    for variant in options.variant:
        cells = (f"{found[variant, network]:.3f}" for network in networks)
        lines.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
