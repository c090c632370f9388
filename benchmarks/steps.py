"""What one step of a plan takes, in CPU time, and what it leaves of a network.

OMP_NUM_THREADS=1 python -m benchmarks.steps --data ../shared/data --network cifar100_resnet18 \\
    --sparsity 0.95 --effort quick --rule lamp
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import sparsemend as sm
from benchmarks._network import load
from sparsemend.recipe import Recipe
from sparsemend.session import Session
from sparsemend.verbs.planning import carry_out
from sparsemend.verbs.steps import Step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", default="cifar100_resnet18")
    parser.add_argument("--sparsity", type=float, default=0.95)
    parser.add_argument("--rule", default="lamp")
    parser.add_argument("--repair", default="reconstruct")
    parser.add_argument("--effort", default="quick")
    parser.add_argument("--inputs", type=int, default=512)
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    given = parser.parse_args()
    model, images = load(given.data, given.network)
    seen = images.calibration_batches(given.inputs, 128)
    heldout = images.heldout_batches(256, 128, calibration_size=given.inputs)
    session = Session.open(model, seen, heldout, judging=True)
    session.check_outputs()
    step = Step(given.repair, given.effort, given.inputs, 1.0, given.rule)
    start = time.process_time()
    result = carry_out(session, Recipe(given.sparsity), [step])
    seconds = time.process_time() - start
    found = sm.evaluate(result.model, images.test_batches(limit=given.limit))
    print(f"{step}: {seconds:.0f} s of CPU time, {found}, {result.agreement}")


if __name__ == "__main__":
    main()
