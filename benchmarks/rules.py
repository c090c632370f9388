"""Accuracy of every rule under three BatchNorm repairs: the table of the README.

python -m benchmarks.rules --data SHARED/data --network cifar10_resnet20 --store rules.sqlite

One diagnosis, after repair variance, for all repairs: so a rule has the same densities under each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import sparsemend as sm
from benchmarks._device import add_device
from benchmarks._network import load

REPAIRS = ("batchnorm", "batchnorm-ema", "shrinkage+batchnorm-ema")
BATCH_SIZE = 128


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", default="cifar10_resnet20")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.7, 0.8, 0.9])
    parser.add_argument("--repair", nargs="+", default=list(REPAIRS))
    parser.add_argument("--calibration-size", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("rules.sqlite"))
    add_device(parser)
    options = parser.parse_args()

    model, images = load(options.data, options.network, options.device)
    inputs = images.calibration(options.calibration_size, seed=options.seed).split(BATCH_SIZE)
    result = sm.sweep(
        {options.network: model},
        images,
        options.sparsity,
        rules=sm.rule_names(),
        repairs=options.repair,
        seeds=options.seed,
        diagnosis=sm.diagnose(model, sm.calibrate(model, inputs), "variance"),
        calibration_size=options.calibration_size,
        heldout_size=0,
        batch_size=BATCH_SIZE,
        store=options.store,
    )
    for failure in result.failures:
        print(f"{failure.cell}: {failure.error}")
    print(f"| sparsity | rule | {' | '.join(options.repair)} |")
    print("|---|---|" + "---|" * len(options.repair))
    top1 = {(r.cell.sparsity, r.cell.rule, r.cell.repair): r.top1_repaired for r in result.records}
    for sparsity in options.sparsity:
        for rule in sm.rule_names():
            found = [top1.get((sparsity, rule, repair)) for repair in options.repair]
            shown = ["-" if value is None else f"{100 * value:.1f}" for value in found]
            print(f"| {sparsity:g} | {rule} | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
