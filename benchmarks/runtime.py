"""How fast sparse networks run: ``python -m benchmarks.runtime``.

Networks with random weights: how fast they are depends on the shapes and on which weights are kept,
and magnitudes of random weights are those of no training. With ``--data`` trained ones are used.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import nn

import sparsemend as sm

CASES = (
    # network, rule, sparsity, batch
    ("cifar_resnet20", "uniform", 0.95, 1),
    ("cifar_resnet18", "uniform", 0.95, 1),
    ("cifar_resnet18", "uniform", 0.95, 16),
    ("cifar_resnet18", "global", 0.95, 1),
    ("vgg16_bn", "uniform", 0.95, 1),
    ("vgg16_bn", "uniform", 0.95, 16),
    ("torchvision:resnet50", "uniform", 0.95, 1),
    ("torchvision:mobilenet_v2", "uniform", 0.9, 1),
)


def network(name: str, data: Path | None) -> tuple[nn.Module, tuple[int, ...]]:
    """A network and the shape of its images."""
    torch.manual_seed(0)
    library, _, rest = name.rpartition(":")
    if library:
        import torchvision

        return torchvision.models.get_model(rest, weights=None).eval(), (3, 224, 224)
    if data is None:
        return sm.models.create(name).eval(), (3, 32, 32)
    file = data / "weights" / f"{name.replace('cifar_', 'cifar10_')}.safetensors"
    if not file.is_file():
        file = data / "weights" / f"cifar10_{name}.safetensors"
    return sm.models.load(name, file).model, (3, 32, 32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with weights/")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clock", default="wall", help="wall or cpu")
    parser.add_argument("--network", action="append", help="only these")
    given = parser.parse_args()
    for name, rule, sparsity, batch in CASES:
        if given.network and name not in given.network:
            continue
        model, shape = network(name, given.data)
        pruned = sm.prune(model, sm.allocate(model, sparsity, rule=rule))
        example = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
        timing = sm.bench(
            pruned, example, threads=given.threads, seconds=given.seconds, clock=given.clock
        )
        print(f"{name}, {rule} {sparsity:.2f}, batch {batch}\n{timing}\n", flush=True)
        print(json.dumps({"network": name, "rule": rule, **timing.to_dict()}), flush=True)


if __name__ == "__main__":
    main()
