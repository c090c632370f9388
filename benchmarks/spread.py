"""How far a reconstruction moves when the same sums are taken in another order.

OMP_NUM_THREADS=1 python -m benchmarks.spread --data SHARED/data --network cifar10_resnet20

The same calibration images in batches of several sizes and on several numbers of threads: all that
changes is in which order numbers are added. KL on held-out images, top-1 on the first test images.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

import sparsemend as sm
from benchmarks._device import add_device
from benchmarks._network import load
from sparsemend.execution.threads import thread_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", default="cifar10_resnet20")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rule", default="erk")
    parser.add_argument("--calibration-size", type=int, default=256)
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 64, 100, 128, 200])
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    add_device(parser)
    options = parser.parse_args()

    model, images = load(options.data, options.network, options.device)
    size, seed = options.calibration_size, options.seed
    inputs = torch.cat(images.calibration_batches(size, size, seed=seed))
    heldout = images.heldout_batches(256, 128, calibration_size=size, seed=seed)
    found = []
    for threads in options.threads:
        for batch_size in options.batch_size:
            start = time.process_time()
            with thread_count(threads):
                result = sm.compress(
                    model,
                    inputs.split(batch_size),
                    options.sparsity,
                    options.rule,
                    repair="reconstruct",
                    heldout=heldout,
                    progress=False,
                )
            seconds = time.process_time() - start
            top1 = sm.evaluate(result.model, images.test_batches(limit=options.limit)).top1
            found.append((result.agreement.loss, 100 * top1))
            print(
                f"batches of {batch_size}, {threads} thread(s): KL {found[-1][0]:.4f}, "
                f"top-1 {found[-1][1]:.2f} %, {seconds:.0f} s of CPU time",
                flush=True,
            )
    for name, values in zip(("KL", "top-1"), zip(*found, strict=True), strict=True):
        mean, deviation = statistics.mean(values), statistics.pstdev(values)
        reach = f"{min(values):.4f} to {max(values):.4f}"
        print(f"{name}: {mean:.4f} ± {deviation:.4f}, {reach}")


if __name__ == "__main__":
    main()
