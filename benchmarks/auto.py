"""Rule auto beside every plain rule: top-1 on the full test set and KL on held-out inputs.

python -m benchmarks.auto --data SHARED/data --store auto.jsonl

1,024 calibration and 512 held-out training images, drawn by the seed; every (cell, rule) is a
row of the store, so that a killed run resumes and a finished one prints its table again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sparsemend as sm
from benchmarks._store import Store
from sparsemend.repair import parse_repair
from sparsemend.search import AUTO, damage_curves

CALIBRATION, HELDOUT = 1024, 512
CELLS = (
    *((n, s) for n in ("cifar10_resnet20", "cifar100_resnet20") for s in (0.8, 0.9, 0.95)),
    ("cifar10_resnet56", 0.9),
    ("cifar100_resnet56", 0.9),
)
RULES = (AUTO, *sm.rule_names())


class Bench:
    """One network, its images, and what its cells share."""

    def __init__(self, folder: Path, network: str, seed: int) -> None:
        data_set, architecture = network.split("_")
        weights = folder / "weights" / f"{network}.safetensors"
        loaded = sm.models.load(f"cifar_{architecture}", weights)
        images = sm.data.load(folder / data_set, mean=loaded.mean, std=loaded.std)
        self._model = loaded.model
        self._batches = list(images.calibration(CALIBRATION, seed=seed).split(128))
        heldout = images.heldout(HELDOUT, calibration_size=CALIBRATION, seed=seed)
        self._heldout = list(heldout.split(128))
        self._test = list(images.test_batches(500))
        self._calibration = sm.calibrate(self._model, self._batches)
        self._diagnoses: dict[str, sm.Diagnosis] = {}

    def run(self, sparsity: float, rule: str, repair: str, budget: str | None) -> dict[str, Any]:
        plan = parse_repair(repair)
        mask = "gradual" if plan.reconstructs else "magnitude"
        if repair not in self._diagnoses:
            found = damage_curves(self._model, self._calibration, plan, mask)
            self._diagnoses[repair] = found
        start = time.perf_counter()
        result = sm.compress(
            self._model,
            self._batches,
            sparsity,
            rule,
            mask,
            repair,
            heldout=self._heldout,
            budget=budget,
            calibration=self._calibration,
            diagnosis=self._diagnoses[repair],
        )
        found = {
            "seconds": time.perf_counter() - start,
            "kl": result.agreement.kl,
            "top1": sm.evaluate(result.model, self._test).top1,
        }
        return found | ({} if result.search is None else {"search": result.search.to_dict()})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--network", nargs="+", default=sorted({n for n, _ in CELLS}))
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95])
    parser.add_argument("--repair", nargs="+", default=["batchnorm", "reconstruct"])
    parser.add_argument("--rule", nargs="+", default=list(RULES))
    parser.add_argument("--budget", default=None)
    options = parser.parse_args()
    store = Store(options.store)
    print(f"| network | sparsity | repair | seed | {' | '.join(options.rule)} |")
    print("|---" * (4 + len(options.rule)) + "|")
    for seed in options.seed:
        benches: dict[str, Bench] = {}
        for network, sparsity in CELLS:
            if network not in options.network or sparsity not in options.sparsity:
                continue
            for repair in options.repair:
                found = [
                    _cell(store, benches, options, network, sparsity, repair, seed, rule)
                    for rule in options.rule
                ]
                shown = " | ".join(f"{100 * f['top1']:.1f} ({f['kl']:.3f})" for f in found)
                print(f"| {network} | {sparsity} | {repair} | {seed} | {shown} |", flush=True)


def _cell(
    store: Store,
    benches: dict[str, Bench],
    options: argparse.Namespace,
    network: str,
    sparsity: float,
    repair: str,
    seed: int,
    rule: str,
) -> Mapping[str, Any]:
    def work() -> dict[str, Any]:
        if network not in benches:
            benches[network] = Bench(options.data, network, seed)
        return benches[network].run(sparsity, rule, repair, budget)

    budget = options.budget if rule == AUTO else None
    cell = {
        "network": network,
        "sparsity": sparsity,
        "repair": repair,
        "seed": seed,
        "rule": rule,
        "budget": budget,
    }
    return store.compute(cell, work)


if __name__ == "__main__":
    main()
