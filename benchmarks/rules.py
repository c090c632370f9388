"""Accuracy of every rule under three BatchNorm repairs: the table of the README.

python -m benchmarks.rules --data SHARED/data --network cifar10_resnet20 --store rules.jsonl
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sparsemend as sm
from benchmarks._network import load
from benchmarks._store import Store

REPAIRS = ("batchnorm", "batchnorm-ema", "shrinkage+batchnorm-ema")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", default="cifar10_resnet20")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.7, 0.8, 0.9])
    parser.add_argument("--repair", nargs="+", default=list(REPAIRS))
    parser.add_argument("--calibration-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("rules.jsonl"))
    options = parser.parse_args()

    model, images = load(options.data, options.network)
    inputs = list(images.calibration(options.calibration_size, seed=options.seed).split(128))
    test = list(images.test_batches(500))
    store = Store(options.store)
    calibration = sm.calibrate(model, inputs)
    diagnosis = sm.diagnose(model, calibration, "variance")

    def accuracy(sparsity: float, rule: str, repair: str) -> dict[str, float]:
        result = sm.compress(
            model,
            inputs,
            sparsity,
            rule,
            repair=repair,
            calibration=calibration,
            diagnosis=diagnosis,
        )
        return {"top1": sm.evaluate(result.model, test).top1, "kl": result.agreement.kl}

    print(f"| sparsity | rule | {' | '.join(options.repair)} |")
    print("|---|---|" + "---|" * len(options.repair))
    for sparsity in options.sparsity:
        for rule in sm.rule_names():
            cells = []
            for repair in options.repair:
                cell = {
                    "network": options.network,
                    "calibration_size": options.calibration_size,
                    "seed": options.seed,
                    "sparsity": sparsity,
                    "rule": rule,
                    "repair": repair,
                }
                found = store.compute(cell, lambda a=(sparsity, rule, repair): accuracy(*a))
                cells.append(f"{100 * found['top1']:.1f}")
            print(f"| {sparsity:g} | {rule} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
