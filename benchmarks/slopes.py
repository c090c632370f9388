"""How well one gradient foretells what repairs of the whole network say of each layer's density.

python -m benchmarks.slopes --data ../shared/data --network cifar10_resnet20 \\
    --sparsity 0.9 --rule global --repair batchnorm

For every layer the network is pruned and repaired with 1.5 times its count, and with its count
divided by that: two repairs, whose difference of KL(dense ‖ repaired) is measured on the
calibration images and on held-out ones. Printed are the correlations over the layers between
these and the slopes, for each way to take the repair into account.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import sparsemend as sm
from benchmarks._network import load
from sparsemend.evaluation import Reference
from sparsemend.repairs import Restored, has_running_norms
from sparsemend.search.directions import Array
from sparsemend.search.slopes import at_the_margin, density_slopes, margins
from sparsemend.session import Session

WAYS: tuple[Restored, ...] = ("nothing", "norms", "layers")


def measured(
    session: Session, counts: dict[str, int], ends: tuple[Sequence[int], Sequence[int]], repair: str
) -> Array:
    """Differences of the KL between both ends, [2, L]: on calibration and on held-out images."""
    judges = [Reference(session.model, session.seen), session.reference]

    def distances(name: str, count: int) -> Array:
        model = sm.prune(session.model, {**counts, name: count})
        sm.repair(model, session.model, session.seen, repair, inplace=True, progress=False)
        return np.array([judge.agreement(model).kl for judge in judges])

    found = []
    for name, less, more in zip(counts, *ends, strict=True):
        found.append(distances(name, more) - distances(name, less))
        print(f"{name:28s} {found[-1][0]:+.4f} {found[-1][1]:+.4f}", flush=True)
    return np.array(found).T


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--network", default="cifar10_resnet20")
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rule", default="global")
    parser.add_argument("--repair", default="batchnorm")
    parser.add_argument("--images", type=int, default=512, help="for calibration, and held out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dense, images = load(options.data, options.network)
    batches = list(images.calibration(options.images, seed=options.seed).split(128))
    heldout = images.heldout(options.images, calibration_size=options.images, seed=options.seed)
    session = Session(dense, batches, list(heldout.split(128)))
    counts = dict(sm.allocate(dense, options.sparsity, options.rule, layers=session.layers))
    ends = margins(tuple(counts.values()), [layer.size for layer in session.layers])
    marginal = at_the_margin(session, counts)
    model = sm.prune(dense, counts)
    sm.repair(model, dense, batches, options.repair, inplace=True, progress=False)
    ways = WAYS if has_running_norms(dense) else ("nothing", "layers")
    slopes = {}
    for way in ways:
        found = density_slopes(session, model, marginal, restored=way)
        if found is None:
            raise SystemExit("the network has no gradient")
        slopes[way] = found * np.log(marginal.ratios)
    print(f"{'KL above - KL below':28s} calib.  held-out")
    seen = measured(session, counts, ends, options.repair)
    print(f"calibration with held-out: {np.corrcoef(seen)[0, 1]:.2f}")
    for way, predicted in slopes.items():
        fits = [np.corrcoef(predicted, row)[0, 1] for row in seen]
        print(f"slopes, restored={way}: calibration {fits[0]:.2f}, held-out {fits[1]:.2f}")


if __name__ == "__main__":
    main()
