"""What each diagnosis of a layer says of the harm that is measured when that layer alone is pruned.

python -m benchmarks.study.harm --data DATA --network cifar100_resnet20 --store harm.jsonl

Every layer is pruned alone to 1 - sparsity of its weights by magnitude, all others stay dense.
Harm is the KL to the dense network and the share of images on which the top-1 classes differ, on
images that nothing else sees; once as it is pruned, and once after each repair. Printed are the
rank correlations (Spearman) over the layers with the layer's raw damage, with the residual damage
after repair, and with their ratio, Relative Repairability.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from scipy import stats

import sparsemend as sm
from benchmarks._network import load
from benchmarks._store import Store
from sparsemend.calibration import kept_count
from sparsemend.diagnosis import Diagnosis
from sparsemend.evaluation import Reference
from sparsemend.sweeps.result import write_csv

PREDICTORS = ("raw", "residual", "rr")
# As which harm is measured without any repair.
PRUNED = "none"
_BATCH = 128


class Subject:
    """A dense network, the inputs that it is repaired with, and those that judge it."""

    def __init__(self, data: Path, network: str, size: int, seed: int) -> None:
        self.dense, images = load(data, network)
        self.inputs = list(images.calibration(size, seed=seed).split(_BATCH))
        heldout = images.heldout(size, calibration_size=size, seed=seed)
        self._reference = Reference(self.dense, list(heldout.split(_BATCH)))
        self._layers = sm.discover(self.dense, self.inputs[0])
        self.about = {"network": network, "images": size, "seed": seed}

    def diagnosis(self, sparsities: Sequence[float]) -> Diagnosis:
        """At these sparsities, after the paper's repair."""
        densities = [1 - sparsity for sparsity in sorted(sparsities, reverse=True)]
        calibration = sm.calibrate(self.dense, self.inputs, progress=False)
        return sm.diagnose(self.dense, calibration, "variance", densities=densities, progress=False)

    def harm(self, layer: str, sparsity: float, repair: str) -> dict[str, float]:
        """KL, and the share of other top-1 classes, with this layer alone pruned and repaired."""
        counts = {each.name: each.size for each in self._layers}
        counts[layer] = kept_count(1 - sparsity, self._layers[layer])
        model = sm.prune(self.dense, counts)
        if repair != PRUNED:
            sm.repair(model, self.dense, self.inputs, repair, inplace=True, progress=False)
        found = self._reference.agreement(model)
        assert found.top1 is not None, "the networks are classifiers"
        return {"kl": found.loss, "disagreement": 1 - found.top1}


def rows(
    subject: Subject, sparsities: Sequence[float], repairs: Sequence[str], store: Store
) -> list[dict[str, Any]]:
    """One row for every layer, sparsity and repair: what was foretold, and what came."""
    diagnosis = subject.diagnosis(sparsities)
    found = []
    for k, sparsity in enumerate(sorted(sparsities, reverse=True)):
        for index, layer in enumerate(diagnosis.layers):
            foretold = {name: float(getattr(diagnosis, name)[index, k]) for name in PREDICTORS}
            for repair in (PRUNED, *repairs):
                what = {"layer": layer, "sparsity": sparsity, "repair": repair}
                cell = {**subject.about, **what}
                harm = store.compute(cell, partial(subject.harm, **what))
                found.append({**cell, **foretold, **harm})
    return found


def correlations(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Spearman's rank correlation of every predictor with both harms over the layers."""
    groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in found:
        groups.setdefault((row["network"], row["sparsity"], row["repair"]), []).append(row)
    return [
        {
            "network": network,
            "sparsity": sparsity,
            "repair": repair,
            "layers": len(own),
            **{
                f"{name}, {harm}": _spearman([(row[name], row[harm]) for row in own])
                for harm in ("kl", "disagreement")
                for name in PREDICTORS
            },
        }
        for (network, sparsity, repair), own in groups.items()
    ]


def _spearman(both: Sequence[tuple[float, float]]) -> str:
    return f"{stats.spearmanr(both).statistic:.2f}"


def table(found: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lines of a Markdown table."""
    names = list(found[0])
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    return lines + [f"| {' | '.join(map(str, row.values()))} |" for row in found]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with weights/ and images")
    parser.add_argument("--network", default="cifar100_resnet20")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.7, 0.8, 0.9, 0.95])
    parser.add_argument("--repair", nargs="+", default=["batchnorm", "variance"])
    parser.add_argument("--images", type=int, default=512, help="for calibration, and held out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--store", type=Path, default=Path("harm.jsonl"))
    parser.add_argument("--csv", type=Path, help="also one row for every layer here")
    options = parser.parse_args()
    subject = Subject(options.data, options.network, options.images, options.seed)
    found = rows(subject, options.sparsity, options.repair, Store(options.store))
    if options.csv:
        write_csv(options.csv, found)
    print("\n".join(table(correlations(found))))


if __name__ == "__main__":
    main()
